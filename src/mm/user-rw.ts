/**
 * read() and write() between a file and an address space (Linux: generic_file_read_iter, generic_perform_write, 3.19).
 *
 * The file is walked page by page. A read goes as far as its destination can be stored to; a write takes of each file
 * page all or nothing, so it stops before the first one whose bytes cannot all be loaded.
 */
import { EFAULT } from '../abi/errno.ts'
import { FAULT_OK } from '../abi/fault.ts'
import { type BulkResult, copyFromUser, copyToUser, fillUser } from './access.ts'
import { makeRoom } from './balance.ts'
import { getPage, KEEP_HOLES } from './filemap.ts'
import { type Machine, POLICY_LINUX } from './machine.ts'
import { fileWrite } from './rw.ts'

const bulk: BulkResult = { fault: FAULT_OK }

/** Reads the file from byte `position` to `address` on. → bytes, or -errno when there are none. */
export function readToUser(
  m: Machine,
  mm: number,
  generation: number,
  address: number,
  length: number,
  file: number,
  position: number
): number {
  const { pageSize } = m.ram
  const inode = m.files.inode[file]
  let done = 0
  while (done < length) {
    const at = position + done
    const n = Math.min(length - done, pageSize - (at % pageSize), m.inodes.sizeBytes[inode] - at)
    if (n <= 0) return done
    const got = readPart(m, mm, generation, address + done, n, file, at)
    if (got < 0) return done > 0 ? done : got
    done += got
    if (got < n) return done > 0 ? done : -EFAULT
  }
  return done
}

/** Part of one file page. → bytes stored, or -errno of the file. */
function readPart(
  m: Machine,
  mm: number,
  generation: number,
  address: number,
  n: number,
  file: number,
  at: number
): number {
  const { pageSize, u8 } = m.ram
  makeRoom(m)
  const frame = m.run(() => pinnedPage(m, file, Math.floor(at / pageSize)))
  if (frame < 0) return frame
  if (m.policy === POLICY_LINUX) touchEnds(m, mm, generation, address, n)
  let done: number
  if (frame === 0) done = fillUser(m, mm, generation, address, 0, n, bulk)
  else {
    done = copyToUser(m, mm, generation, address, u8, frame * pageSize + (at % pageSize), n, bulk)
    m.giveBack(() => {
      if (m.sync.isShared) m.sync.threads.forgetPin(m.sync.me, frame)
      m.lru.markAccessed(frame)
      m.frames.unpin(frame)
      m.putFrame(frame)
    })
  }
  return done
}

/** → the frame of a file page, pinned; 0 for a hole, or -errno. */
function pinnedPage(m: Machine, file: number, index: number): number {
  const frame = getPage(m, m.files.inode[file], file, index, m.files.advice[file], KEEP_HOLES)
  if (frame <= 0) return frame
  if (!m.frames.pin(frame)) return -EFAULT
  if (m.sync.isShared) m.sync.threads.notePin(m.sync.me, frame)
  return frame
}

/**
 * Linux makes sure that the destination can be stored to by storing 0 to its first byte, and to the last one if that is
 * in another page. It shows when the destination is the very page that is read (measured on 3.19).
 */
function touchEnds(m: Machine, mm: number, generation: number, address: number, n: number): void {
  const { pageSize } = m.ram
  const last = address + n - 1
  const isOnePage = (address % pageSize) + n <= pageSize
  if (fillUser(m, mm, generation, address, 0, 1, bulk) === 1 && !isOnePage) {
    fillUser(m, mm, generation, last, 0, 1, bulk)
  }
}

/** Writes bytes from `address` on to the file at byte `position`. → bytes, or -errno when there are none. */
export function writeFromUser(
  m: Machine,
  mm: number,
  generation: number,
  address: number,
  length: number,
  file: number,
  position: number
): number {
  const { pageSize } = m.ram
  const bounce = new Uint8Array(pageSize)
  let done = 0
  while (done < length) {
    const at = position + done
    const n = Math.min(length - done, pageSize - (at % pageSize))
    const loaded = copyFromUser(m, mm, generation, address + done, bounce, 0, n, bulk)
    const put = loaded < n ? -EFAULT : writePart(m, file, at, bounce, n)
    if (put < 0) return done > 0 ? done : put
    done += put
    if (put < n) return done
  }
  return done
}

function writePart(m: Machine, file: number, at: number, bytes: Uint8Array, n: number): number {
  makeRoom(m)
  return m.run(() => fileWrite(m, file, at, bytes, 0, n))
}
