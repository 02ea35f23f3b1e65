/** Reads and writes of /proc/PID/mem: another's memory, whatever its protection (Linux 3.19). */
import { EFAULT, EIO, ESRCH } from '../abi/errno.ts'
import { ACCESS_READ, ACCESS_WRITE } from '../abi/fault.ts'
import { TASK_PAGES } from '../abi/limits.ts'
import { asBytes } from '../base/bytes.ts'
import { forcedFrame } from '../mm/forced.ts'
import { BAD, type Mm, machineOf, offOf, pageOf, type Quantity } from './args.ts'

/**
 * Reads memory into a buffer. → bytes, short before the first page that cannot be read; -EIO when that is the first.
 */
export function sys_mem_read(mm: Mm, addr: Quantity, buffer: Uint8Array): number {
  return transfer(mm, addr, buffer, ACCESS_READ)
}

/** Writes a buffer into memory. → bytes, or -EIO; a shared mapping that is not writable refuses. */
export function sys_mem_write(mm: Mm, addr: Quantity, buffer: Uint8Array): number {
  return transfer(mm, addr, buffer, ACCESS_WRITE)
}

function transfer(mm: Mm, addr: Quantity, buffer: Uint8Array, access: number): number {
  const m = machineOf(mm)
  if (m === undefined) return -ESRCH
  let vpn = pageOf(m, addr)
  if (vpn === BAD) return -EIO
  let off = offOf(m, addr)
  const bytes = asBytes(buffer)
  if (bytes === undefined) return -EFAULT
  const { pageSize, u8 } = m.ram
  const { length } = bytes
  let done = 0
  while (done < length) {
    if (vpn >= TASK_PAGES) return done > 0 ? done : -EIO
    if (!m.lockMmRead(mm.id, mm.generation)) return done > 0 ? done : -m.refused
    const n = Math.min(length - done, pageSize - off)
    try {
      let frame = forcedFrame(m, mm.id, vpn, access)
      // A store that was called for the page has taken the caller's buffer away.
      if (bytes.length < length) frame = -1
      const base = frame * pageSize + off
      if (frame >= 0 && access === ACCESS_WRITE) u8.set(bytes.subarray(done, done + n), base)
      else if (frame >= 0) bytes.set(u8.subarray(base, base + n), done)
      m.unlockMmRead(mm.id)
      if (frame < 0) return done > 0 ? done : -EIO
    } catch (thrown) {
      return m.abandon(thrown)
    }
    done += n
    vpn++
    off = 0
  }
  return done
}
