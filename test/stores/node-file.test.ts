import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest'
import { EAGAIN, EBADF, EFBIG, EINTR, EINVAL, EIO, ENOSPC } from '../../src/abi/errno.ts'
import type { StoreHandle } from '../../src/store/store.ts'
import { type NodeFile, nodeFile, nodeFileFromDescriptor, nodeFiles } from '../../src/stores/node-file.ts'
import { compileInto } from '../support/compiled.ts'
import { bytes, expectBytes, expectToAgreeWithModel, pattern, read, storeConformance, write } from './conformance.ts'

/** What the other thread does. */
const WORKER = `
import { parentPort, workerData } from 'node:worker_threads'
const store = nodeFileFromDescriptor(workerData.fd, 'shared')
const got = store.read(5_000_000_000, workerData.memory, 1, 7)
store.close()
parentPort.postMessage([got, store.identity])
`

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'fremap-node-file-'))
let files = 0
const freshPath = (): string => path.join(directory, `${++files}`)

afterEach(() => {
  vi.restoreAllMocks()
})

afterAll(() => {
  fs.rmSync(directory, { recursive: true })
})

storeConformance('nodeFile', {
  open: () => nodeFile(freshPath(), 'wx+'),
  openReadOnly: contents => {
    const file = freshPath()
    fs.writeFileSync(file, contents)
    return nodeFile(file, 'r')
  },
  openAgain: store => nodeFile(store.name, 'r+'),
  reopen: store => {
    store.close()
    return nodeFile(store.name, 'r+')
  },
  punch: 'unsupported'
})

describe('nodeFileFromDescriptor', () => {
  const descriptors: number[] = []
  const openDescriptor = (file: string, flags: string): number => {
    const fd = fs.openSync(file, flags)
    descriptors.push(fd)
    return fd
  }

  afterEach(() => {
    for (const fd of descriptors.splice(0)) fs.closeSync(fd)
  })

  storeConformance('nodeFileFromDescriptor', {
    open: () => {
      const file = freshPath()
      return nodeFileFromDescriptor(openDescriptor(file, 'wx+'), file)
    },
    openReadOnly: contents => {
      const file = freshPath()
      fs.writeFileSync(file, contents)
      return nodeFileFromDescriptor(openDescriptor(file, 'r'), file)
    },
    openAgain: store => nodeFileFromDescriptor((store as NodeFile).fd, store.name),
    punch: 'unsupported'
  })

  test('closing the store leaves the descriptor to its opener', () => {
    const fd = openDescriptor(freshPath(), 'wx+')
    const store = nodeFileFromDescriptor(fd, 'borrowed')
    expect(store.fd).toBe(fd)
    expect(store.close()).toBe(0)
    expect(store.fd).toBe(-1)
    expect(fs.writeSync(fd, bytes(1))).toBe(1)
  })

  test('a descriptor serves another thread, into memory that both share', async () => {
    const store = nodeFile(freshPath(), 'wx+')
    write(store, 5_000_000_000, bytes(1, 2, 3))
    const memory = new Uint8Array(new SharedArrayBuffer(8)).fill(9)
    const worker = new Worker(compiledNodeFile(), { workerData: { fd: store.fd, memory } })
    const [got, identity] = await new Promise<[number, string]>((resolve, reject) => {
      worker.once('message', resolve).once('error', reject)
    })
    await worker.terminate()
    expect(got).toBe(3)
    expect(identity).toBe(store.identity)
    expectBytes(memory, bytes(9, 1, 2, 3, 9, 9, 9, 9))
    expectBytes(read(store, 5_000_000_000, 8), bytes(1, 2, 3))
    expect(store.close()).toBe(0)
  })

  test("refuses what is not a readable regular file, with the system's own errors", () => {
    expect(() => nodeFileFromDescriptor(openDescriptor(directory, 'r'), 'directory')).toThrow(/^EISDIR: .*'directory'/)
    expect(() => nodeFileFromDescriptor(openDescriptor(freshPath(), 'wx'), 'write-only')).toThrow(/^EBADF/)
    const fd = fs.openSync(freshPath(), 'wx+')
    fs.closeSync(fd)
    expect(() => nodeFileFromDescriptor(fd, 'closed')).toThrow(/^EBADF/)
    expect(() => nodeFileFromDescriptor(-1, 'none')).toThrow(RangeError)
  })
})

describe('nodeFiles', () => {
  /** As on a system without /proc, or in a thread that may not open the file there. */
  const withoutProc = (): void => {
    const { openSync } = fs
    vi.spyOn(fs, 'openSync').mockImplementation((file, ...rest) => {
      if (String(file).startsWith('/proc/'))
        throw Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES' })
      return openSync(file, ...rest)
    })
  }

  describe.each([
    ['by a descriptor of its own', () => {}],
    ['by the descriptor that is there', withoutProc]
  ])('opens %s', (_, begin) => {
    test.each(['r', 'r+'] as const)('the same file for the same: %s', mode => {
      const file = freshPath()
      fs.writeFileSync(file, 'abc')
      const store = nodeFile(file, mode)
      begin()
      const again = nodeFiles.open(structuredClone(store.handle) as StoreHandle)
      expect([again.readOnly, again.identity, again.name]).toEqual([mode === 'r', store.identity, file])
      expectBytes(read(again, 0, 8), new TextEncoder().encode('abc'))
      expect(again.write(0, bytes(65), 0, 1)).toBe(mode === 'r' ? -EBADF : 1)
      expect([again.close(), store.close()]).toEqual([0, 0])
    })

    test('nothing when the descriptor is that of another file by now: ESTALE', () => {
      const [one, two] = [freshPath(), freshPath()]
      fs.writeFileSync(two, 'the other one')
      const store = nodeFile(one, 'c+')
      const { fd } = store
      const { handle } = store
      store.close()
      const other = nodeFile(two, 'r+')
      expect(other.fd).toBe(fd)
      begin()
      expect(() => nodeFiles.open(handle as StoreHandle)).toThrow(expect.objectContaining({ code: 'ESTALE' }))
      expect(other.close()).toBe(0)
      expect(() => nodeFiles.open(handle as StoreHandle)).toThrow(expect.objectContaining({ code: 'EBADF' }))
    })
  })

  test('not for reading what was opened for writing, nor for whatever else a write gives', () => {
    const file = freshPath()
    fs.writeFileSync(file, 'abc')
    const store = nodeFile(file, 'r')
    withoutProc()
    const handle = { ...store.handle, access: 'r+' } as StoreHandle
    expect(() => nodeFiles.open(handle)).toThrow(/^EBADF: descriptor \d+ cannot be written in this thread/)
    vi.spyOn(fs, 'writeSync').mockImplementation(() => {
      throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' })
    })
    expect(() => nodeFiles.open(handle)).toThrow(/^EIO/)
    expect(store.close()).toBe(0)
  })
})

describe('nodeFile', () => {
  test('agrees with a plain array of bytes', () => {
    expectToAgreeWithModel({ open: () => nodeFile(freshPath(), 'wx+'), punch: 'unsupported' })
  })

  test("r and r+ open what exists, and throw the system's error for what does not", () => {
    const file = freshPath()
    for (const mode of ['r', 'r+'] as const) {
      expect(() => nodeFile(file, mode)).toThrow(
        expect.objectContaining({ code: 'ENOENT', syscall: 'open', path: file })
      )
    }
    fs.writeFileSync(file, 'abc')
    for (const mode of ['r', 'r+'] as const) {
      const store = nodeFile(file, mode)
      expect(store.readOnly).toBe(mode === 'r')
      expectBytes(read(store, 0, 8), new TextEncoder().encode('abc'))
      expect(store.close()).toBe(0)
    }
  })

  test('c+ keeps the bytes, w+ drops them, wx+ refuses; all three create', () => {
    for (const mode of ['c+', 'w+', 'wx+'] as const) {
      const file = freshPath()
      const created = nodeFile(file, mode)
      write(created, 0, bytes(1, 2, 3))
      expect(created.close()).toBe(0)
      if (mode === 'wx+') {
        expect(() => nodeFile(file, mode)).toThrow(/^EEXIST/)
        continue
      }
      const again = nodeFile(file, mode)
      expect(again.size()).toBe(mode === 'c+' ? 3 : 0)
      expect(again.close()).toBe(0)
    }
  })

  test('a+ is no mode: an append descriptor would ignore positions', () => {
    expect(() => nodeFile(freshPath(), 'a+' as 'c+')).toThrow(TypeError)
  })

  test('takes a URL, a name and permissions; without a name it goes by its path', () => {
    const file = freshPath()
    const store = nodeFile(pathToFileURL(file), 'wx+', { permissions: 0o600 })
    expect(store.name).toBe(file)
    expect(store.durable).toBe(true)
    expect(fs.statSync(file).mode & 0o777).toBe(0o600)
    const named = nodeFile(file, 'r', { name: 'the ledger' })
    expect(named.name).toBe('the ledger')
    expect([store.close(), named.close()]).toEqual([0, 0])
  })

  test('a link and a second name lead to the same identity', () => {
    const file = freshPath()
    const store = nodeFile(file, 'wx+')
    fs.symlinkSync(file, `${file}-symbolic`)
    fs.linkSync(file, `${file}-hard`)
    for (const other of [`${file}-symbolic`, `${file}-hard`]) {
      const same = nodeFile(other, 'r')
      expect(same.identity).toBe(store.identity)
      expect(same.close()).toBe(0)
    }
    expect(store.close()).toBe(0)
  })

  test.skipIf(process.platform === 'win32')(
    'a directory, a pipe, a socket and a device are refused, and no descriptor stays open',
    async () => {
      const pipe = freshPath()
      execFileSync('mkfifo', [pipe])
      const socket = freshPath()
      const server = net.createServer().listen(socket)
      await new Promise(resolve => server.once('listening', resolve))
      const probe = (): number => {
        const fd = fs.openSync(directory, 'r')
        fs.closeSync(fd)
        return fd
      }
      const before = probe()
      for (let i = 0; i < 50; i++) {
        for (const [file, code] of [
          [directory, 'EISDIR'],
          [pipe, 'ESPIPE'],
          [socket, 'ESPIPE'],
          ['/dev/null', 'EINVAL']
        ]) {
          for (const mode of ['r', 'r+', 'c+'] as const) {
            const error = { code, syscall: 'open', path: file, errno: -os.constants.errno[code as 'EINVAL'] }
            expect(() => nodeFile(file, mode)).toThrow(expect.objectContaining(error))
          }
        }
      }
      // Other threads of the process may have opened a few meanwhile; 600 would be ours.
      expect(probe()).toBeLessThan(before + 100)
      server.close()
    }
  )

  test('what becomes a directory between the look and the open is refused and closed again', () => {
    vi.spyOn(fs, 'statSync').mockReturnValue(undefined)
    const close = vi.spyOn(fs, 'closeSync')
    expect(() => nodeFile(directory, 'r')).toThrow(/^EISDIR/)
    expect(close).toHaveBeenCalledTimes(1)
  })

  test('creating a file flushes the directory that holds it, through a link as well', () => {
    const elsewhere = fs.mkdtempSync(path.join(directory, 'elsewhere-'))
    const link = freshPath()
    fs.symlinkSync(path.join(elsewhere, 'file'), link)
    const flushed: bigint[] = []
    const fsync = fs.fsyncSync
    vi.spyOn(fs, 'fsyncSync').mockImplementation(fd => {
      flushed.push(fs.fstatSync(fd, { bigint: true }).ino)
      fsync(fd)
    })
    expect(nodeFile(link, 'c+').close()).toBe(0)
    expect(flushed).toEqual([fs.statSync(elsewhere, { bigint: true }).ino])
    expect(nodeFile(link, 'c+').close()).toBe(0)
    expect(flushed.length).toBe(1)
  })
})

describe('when the system fails, nodeFile', () => {
  const open = (): NodeFile => nodeFile(freshPath(), 'wx+')
  const failure = (code: string): Error => Object.assign(new Error(code), { code })
  const buffer = new Uint8Array(10_000)

  test('goes on after short reads, and stops at the end only', () => {
    const store = open()
    write(store, 0, pattern(10_000))
    const readSync = fs.readSync as (fd: number, into: Uint8Array, offset: number, length: number, at: number) => number
    const short = vi.spyOn(fs, 'readSync') as unknown as ReturnType<typeof vi.fn<typeof readSync>>
    short.mockImplementation((fd, into, offset, length, at) => readSync(fd, into, offset, Math.min(length, 1111), at))
    expectBytes(read(store, 0, 12_000), pattern(10_000))
    expect(short.mock.calls.length).toBe(11)
    expect(store.close()).toBe(0)
  })

  test('goes on after short writes, and gives up on a file that takes nothing', () => {
    const store = open()
    const writeSync = fs.writeSync as (
      fd: number,
      from: Uint8Array,
      offset: number,
      length: number,
      at: number
    ) => number
    const short = vi.spyOn(fs, 'writeSync') as unknown as ReturnType<typeof vi.fn<typeof writeSync>>
    short.mockImplementation((fd, from, offset, length, at) => writeSync(fd, from, offset, Math.min(length, 1111), at))
    write(store, 5, pattern(10_000))
    expect(short.mock.calls.length).toBe(10)
    short.mockReset().mockReturnValue(0)
    expect(store.write(0, buffer, 0, 10)).toBe(-EIO)
    vi.restoreAllMocks()
    expectBytes(read(store, 5, 20_000), pattern(10_000))
    expect(store.close()).toBe(0)
  })

  test.each([
    ['EINTR', EINTR],
    ['EAGAIN', EAGAIN]
  ])('tries again after %s, but not for ever', (code, errno) => {
    const store = open()
    write(store, 0, pattern(100))
    for (const [name, run, good] of [
      ['readSync', () => store.read(0, buffer, 0, 100), 100],
      ['writeSync', () => store.write(0, pattern(100), 0, 100), 100],
      ['fsyncSync', () => store.flush(), 0],
      ['ftruncateSync', () => store.truncate(100), 0]
    ] as const) {
      const spy = vi.spyOn(fs, name)
      spy
        .mockImplementationOnce(() => {
          throw failure(code)
        })
        .mockImplementationOnce(() => {
          throw failure(code)
        })
      expect(run()).toBe(good)
      expect(spy.mock.calls.length).toBe(3)
      spy.mockImplementation(() => {
        throw failure(code)
      })
      expect(run()).toBe(-errno)
      expect(spy.mock.calls.length).toBeLessThan(1000)
      spy.mockRestore()
      expect(run()).toBe(good)
    }
    expectBytes(read(store, 0, 200), pattern(100))
    expect(store.close()).toBe(0)
  })

  test.each([
    ['ENOSPC', ENOSPC],
    ['EIO', EIO],
    ['EDQUOT', EIO],
    ['ERR_OUT_OF_RANGE', EIO]
  ])('turns %s into a result', (code, errno) => {
    const store = open()
    const fail = (): never => {
      throw failure(code)
    }
    for (const name of ['readSync', 'writeSync', 'fsyncSync', 'ftruncateSync', 'fstatSync', 'closeSync'] as const) {
      vi.spyOn(fs, name).mockImplementation(fail)
    }
    const { fd } = store
    const results = [store.size(), store.read(0, buffer, 0, 1), store.write(0, buffer, 0, 1), store.truncate(0)]
    results.push(store.flush(), store.close())
    expect(results).toEqual(Array(6).fill(-errno))
    expect(store.close()).toBe(-EBADF)
    vi.restoreAllMocks()
    fs.closeSync(fd)
  })

  test('an error without a code is -EIO', () => {
    const store = open()
    vi.spyOn(fs, 'readSync').mockImplementation(() => {
      throw new Error('unknown')
    })
    expect(store.read(0, buffer, 0, 1)).toBe(-EIO)
    vi.restoreAllMocks()
    expect(store.close()).toBe(0)
  })

  test('repeats a failed flush for good, because the next fsync would promise what is lost', () => {
    const store = open()
    write(store, 0, bytes(1))
    const fsync = vi.spyOn(fs, 'fsyncSync').mockImplementationOnce(() => {
      throw failure('ENOSPC')
    })
    expect(store.flush()).toBe(-ENOSPC)
    expect(store.flush()).toBe(-ENOSPC)
    expect(fsync.mock.calls.length).toBe(1)
    expectBytes(read(store, 0, 1), bytes(1))
    expect(store.close()).toBe(0)
  })

  test('refused arguments have their numbers', () => {
    const store = open()
    expect(store.read(-1, buffer, 0, 1)).toBe(-EINVAL)
    expect(store.truncate(0.5)).toBe(-EINVAL)
    // Not left to the file system: some can hold as much, and the rest of a short write would have no position.
    const writeSync = vi.spyOn(fs, 'writeSync')
    expect(store.write(2 ** 53 - 1, buffer, 0, 1)).toBe(-EFBIG)
    expect(writeSync).not.toHaveBeenCalled()
    expect(store.close()).toBe(0)
  })
})

/** `src/stores/node-file.ts` and what it imports, as JavaScript that a worker thread of any Node can load. */
function compiledNodeFile(): string {
  const file = compileInto(fs.mkdtempSync(path.join(directory, 'compiled-')), 'stores/node-file')
  fs.appendFileSync(file, WORKER)
  return file
}
