/**
 * Linux's error numbers, as far as the calls here can give them.
 *
 * Inside the machine an error is `-errno` in the place of a result; only `api/` turns it into an exception.
 * Values: Linux, include/uapi/asm-generic/errno-base.h and errno.h (x86-64 and arm64 agree on all of these).
 */
export const EPERM = 1 as const
export const ENOENT = 2 as const
export const ESRCH = 3 as const
export const EINTR = 4 as const
export const EIO = 5 as const
export const ENXIO = 6 as const
export const EBADF = 9 as const
export const EAGAIN = 11 as const
export const ENOMEM = 12 as const
export const EACCES = 13 as const
export const EFAULT = 14 as const
export const EBUSY = 16 as const
export const EEXIST = 17 as const
export const ENODEV = 19 as const
export const EISDIR = 21 as const
export const EINVAL = 22 as const
export const ENFILE = 23 as const
export const EMFILE = 24 as const
export const EFBIG = 27 as const
export const ENOSPC = 28 as const
export const EROFS = 30 as const
export const EPIPE = 32 as const
export const EDEADLK = 35 as const
export const ELOOP = 40 as const
export const EOVERFLOW = 75 as const
export const EOPNOTSUPP = 95 as const
export const ENETUNREACH = 101 as const
export const ECONNRESET = 104 as const
export const ETIMEDOUT = 110 as const
export const ECONNREFUSED = 111 as const
export const EHOSTUNREACH = 113 as const
export const ESTALE = 116 as const
export const ECANCELED = 125 as const
export const EOWNERDEAD = 130 as const
export const ENOTRECOVERABLE = 131 as const

const NAMES: ReadonlyMap<number, string> = new Map([
  [EPERM, 'EPERM'],
  [ENOENT, 'ENOENT'],
  [ESRCH, 'ESRCH'],
  [EINTR, 'EINTR'],
  [EIO, 'EIO'],
  [ENXIO, 'ENXIO'],
  [EBADF, 'EBADF'],
  [EAGAIN, 'EAGAIN'],
  [ENOMEM, 'ENOMEM'],
  [EACCES, 'EACCES'],
  [EFAULT, 'EFAULT'],
  [EBUSY, 'EBUSY'],
  [EEXIST, 'EEXIST'],
  [ENODEV, 'ENODEV'],
  [EISDIR, 'EISDIR'],
  [EINVAL, 'EINVAL'],
  [ENFILE, 'ENFILE'],
  [EMFILE, 'EMFILE'],
  [EFBIG, 'EFBIG'],
  [ENOSPC, 'ENOSPC'],
  [EROFS, 'EROFS'],
  [EPIPE, 'EPIPE'],
  [EDEADLK, 'EDEADLK'],
  [ELOOP, 'ELOOP'],
  [EOVERFLOW, 'EOVERFLOW'],
  [EOPNOTSUPP, 'EOPNOTSUPP'],
  [ENETUNREACH, 'ENETUNREACH'],
  [ECONNRESET, 'ECONNRESET'],
  [ETIMEDOUT, 'ETIMEDOUT'],
  [ECONNREFUSED, 'ECONNREFUSED'],
  [EHOSTUNREACH, 'EHOSTUNREACH'],
  [ESTALE, 'ESTALE'],
  [ECANCELED, 'ECANCELED'],
  [EOWNERDEAD, 'EOWNERDEAD'],
  [ENOTRECOVERABLE, 'ENOTRECOVERABLE']
])

/** The name of an error number, of either sign: `errnoName(-22) === 'EINVAL'`. Unknown ones give `E` and the number. */
export function errnoName(errno: number): string {
  const n = Math.abs(errno)
  return NAMES.get(n) ?? `E${n}`
}

/** The number for a name such as `'EIO'`, or `undefined`. What a platform's error `code` is translated with. */
export function errnoFromName(name: string): number | undefined {
  for (const [n, s] of NAMES) if (s === name) return n
  return undefined
}
