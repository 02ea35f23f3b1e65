/**
 * A process that serves one file on loopback, whole or by ranges, for rows about HTTP: its work is not the row's.
 *
 *     node file-server.js FILE
 *
 * Says its port to the parent, and ends with it. The file is in its memory, so that no side waits for a disk.
 */
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

const contents = readFileSync(process.argv[2])
const lastModified = 'Tue, 02 Jan 2024 03:04:05 GMT'

const server = createServer((request, response) => {
  const found = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')
  const first = found === null ? 0 : Number(found[1])
  const last = found === null ? contents.length - 1 : Math.min(Number(found[2]), contents.length - 1)
  const headers = { etag: '"bench"', 'last-modified': lastModified, 'content-length': last - first + 1 }
  if (found === null) response.writeHead(200, headers)
  else response.writeHead(206, { ...headers, 'content-range': `bytes ${first}-${last}/${contents.length}` })
  response.end(contents.subarray(first, last + 1))
})
server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port))
process.on('disconnect', () => process.exit())
