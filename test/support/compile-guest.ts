/** Compiles the guest program of guest/ as `npm run build` does, without a file. → the WebAssembly module's bytes. */
import { fileURLToPath } from 'node:url'
import asc from 'assemblyscript/asc'

const CONFIG = fileURLToPath(new URL('../../guest/asconfig.json', import.meta.url))

export async function compileGuest(): Promise<Uint8Array> {
  let binary: Uint8Array | undefined
  const { error, stderr } = await asc.main(['--config', CONFIG], {
    writeFile: (_name, contents) => {
      if (typeof contents !== 'string') binary = contents
    }
  })
  if (error !== null) throw new Error(`the guest does not compile: ${error.message}\n${stderr.toString()}`)
  if (binary === undefined) throw new Error('the compiler of the guest wrote nothing')
  return binary
}
