/**
 * System calls of the running Linux, through koffi: numbers in, a number or -errno out.
 *
 * `openLibc` gives undefined and says why where there is no such kernel or library. What may be called with which
 * addresses is the caller's business (see kernel.ts): these calls change this very process.
 */

/** System call numbers; what is not here goes through a function of the C library. */
const NUMBERS = {
  x64: {
    read: 0,
    write: 1,
    pread64: 17,
    pwrite64: 18,
    mmap: 9,
    mprotect: 10,
    munmap: 11,
    mremap: 25,
    msync: 26,
    madvise: 28,
    mlock: 149,
    munlock: 150,
    munlockall: 152,
    remap_file_pages: 216,
    fallocate: 285
  },
  arm64: {
    read: 63,
    write: 64,
    pread64: 67,
    pwrite64: 68,
    mmap: 222,
    mprotect: 226,
    munmap: 215,
    mremap: 216,
    msync: 227,
    madvise: 233,
    mlock: 228,
    munlock: 229,
    munlockall: 231,
    remap_file_pages: 234,
    fallocate: 47
  }
} as const

export type CallName = keyof (typeof NUMBERS)['x64']
export type Argument = number | bigint

const LIBRARIES = ['libc.so.6', `libc.musl-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.so.1`]
const SC_PAGESIZE = 30
const PAGE_SIZE = 4096

export interface Libc {
  /** → the call's result, or -errno. */
  readonly call: (name: CallName, ...args: Argument[]) => number
  /** Fills `vec`. → 0 or -errno. */
  readonly mincore: (address: bigint, len: bigint, vec: Uint8Array) => number
  /** → descriptor or -errno. */
  readonly memfd: (name: string) => number
  /** → [read end, write end]. Throws when there is none. */
  readonly pipe: () => [number, number]
}

export interface Unavailable {
  readonly reason: string
}

/** The C library of this process, or why it cannot be used. */
export async function openLibc(): Promise<Libc | Unavailable> {
  if (process.platform !== 'linux') return { reason: `this is ${process.platform}, not Linux` }
  const numbers = NUMBERS[process.arch as keyof typeof NUMBERS]
  if (numbers === undefined) return { reason: `no system call numbers for ${process.arch}` }
  try {
    const { default: koffi } = await import('koffi')
    const lib = loadFirst(name => koffi.load(name))
    const pageSize = lib.func('long sysconf(int name)')(SC_PAGESIZE)
    if (pageSize !== PAGE_SIZE) return { reason: `pages of ${pageSize} bytes, not ${PAGE_SIZE}` }
    const syscall = lib.func('int64_t syscall(int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t)')
    const mincore = lib.func('int mincore(uint64_t address, uint64_t len, uint8_t *vec)')
    const memfd = lib.func('int memfd_create(const char *name, unsigned int flags)')
    const pipe = lib.func('int pipe(int *fds)')
    const result = (value: number | bigint): number => (Number(value) === -1 ? -koffi.errno() : Number(value))
    return {
      call: (name, ...[a = 0, b = 0, c = 0, d = 0, e = 0, f = 0]) => result(syscall(numbers[name], a, b, c, d, e, f)),
      mincore: (address, len, vec) => result(mincore(address, len, vec)),
      memfd: name => result(memfd(name, 0)),
      pipe: () => {
        const fds = new Int32Array(2)
        const error = result(pipe(fds))
        if (error < 0) throw new Error(`no pipe: ${error}`)
        return [fds[0], fds[1]]
      }
    }
  } catch (error) {
    return { reason: `koffi does not load: ${(error as Error).message.split('\n')[0]}` }
  }
}

function loadFirst<T>(load: (name: string) => T): T {
  let last: unknown
  for (const name of LIBRARIES) {
    try {
      return load(name)
    } catch (error) {
      last = error
    }
  }
  throw last
}
