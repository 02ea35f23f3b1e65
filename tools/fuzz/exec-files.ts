/** The fuzzer's operations on files, applied to the machine and the model. */
import { EAGAIN, EBADF, EINVAL, EIO, ENOMEM, EOPNOTSUPP } from '../../src/abi/errno.ts'
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  POSIX_FADV_NOREUSE
} from '../../src/abi/mman.ts'
import { fileOf } from '../../src/mm/files.ts'
import { POLICY_LINUX } from '../../src/mm/machine.ts'
import {
  O_RDONLY,
  O_RDWR,
  sys_close,
  sys_fadvise,
  sys_fallocate,
  sys_fsync,
  sys_ftruncate,
  sys_pread,
  sys_pwrite,
  sys_reopen
} from '../../src/syscall/file.ts'
import { excused, pattern } from './excuses.ts'
import { foreign } from './foreign.ts'
import { cutBorrowed } from './held.ts'
import { Mismatch } from './mismatch.ts'
import type { ModelFile } from './model.ts'
import type { Op } from './ops.ts'
import { fileMayBeGone, isGone } from './soft-dirty.ts'
import { type FuzzFile, storedBytes, type World } from './world.ts'

export function execFile(w: World, op: Op): void {
  if (!('f' in op) || op.f < 0) return
  const file = w.files[op.f]
  switch (op.op) {
    case 'read':
      read(w, file, op.pos, op.len)
      break
    case 'write':
      write(w, file, op.pos, op.len, op.fill)
      break
    case 'truncate':
      truncate(w, file, op.size)
      break
    case 'punch':
    case 'zero':
      punch(w, file, op.pos, op.len, op.op)
      break
    case 'falloc':
      falloc(w, file, op.pos, op.len, op.mode)
      break
    case 'fadvise':
      fadvise(w, file, op.pos, op.len, op.advice)
      break
    case 'fsync':
      fsync(w, file)
      break
    case 'reopen':
      reopen(w, op.f)
      break
  }
}

function read(w: World, { fd, model }: FuzzFile, pos: number, len: number): void {
  const buffer = new Uint8Array(len).fill(0xee)
  const got = sys_pread(w.m, fd, foreign(buffer, pos), pos)
  const expected = Math.max(0, Math.min(len, model.size - pos))
  const next = Math.floor((pos + Math.max(0, got)) / w.pageSize)
  const waits = model.isLater && got < expected && !w.peeker.isCached(model.inode, next)
  if (waits && (got > 0 || got === -EAGAIN)) {
    // As far as it came.
  } else if (got < 0 ? !excused(w, got) : got !== expected && !(got < expected && (w.armed || w.isTight))) {
    throw new Mismatch(`read gives ${got}, not ${expected}`)
  }
  if (got > 0) w.compare('what was read', buffer, model.bytes.subarray(pos, pos + got), got)
}

function write(w: World, { fd, model }: FuzzFile, pos: number, len: number, fill: number): void {
  const data = pattern(fill, len)
  if (model.isLater) {
    refuse('write', sys_pwrite(w.m, fd, data, pos), -EBADF)
    return
  }
  const done = sys_pwrite(w.m, fd, foreign(data, pos), pos)
  if (done < 0 ? !excused(w, done) : done !== len && !(done < len && (w.armed || w.isTight))) {
    throw new Mismatch(`write gives ${done}, not ${len}`)
  }
  if (done > 0) model.write(pos, data.subarray(0, done))
}

function truncate(w: World, { fd, model }: FuzzFile, size: number): void {
  const result = sys_ftruncate(w.m, fd, size)
  if (model.isLater) {
    refuse('truncate', result, -EINVAL)
    return
  }
  fileMayBeGone(w, model)
  if (result < 0) {
    if (!excused(w, result)) throw new Mismatch(`truncate gives ${result}`)
    return
  }
  const shrinks = size < model.size
  if (shrinks) cutBorrowed(w, model)
  model.truncate(size)
  if (shrinks) dropCopies(w, model, Math.ceil(size / w.pageSize))
}

/** Truncation takes private copies of the pages that are gone, too. */
function dropCopies(w: World, model: ModelFile, first: number): void {
  for (const space of w.spaces) {
    if (space === undefined) continue
    for (const page of space.pages.values()) {
      if (page.file !== model || page.shared || page.linear < first) continue
      if (page.copy !== null) isGone(page)
      page.copy = null
    }
  }
}

function punch(w: World, { fd, model }: FuzzFile, pos: number, len: number, kind: 'punch' | 'zero'): void {
  const mode = (kind === 'punch' ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE
  const result = sys_fallocate(w.m, fd, mode, pos, len)
  if (model.isLater) {
    refuse(kind, result, -EBADF)
    return
  }
  if (kind === 'zero' && isTmpfs(w, model)) {
    refuse(kind, result, -EOPNOTSUPP)
    return
  }
  fileMayBeGone(w, model)
  cutBorrowed(w, model)
  if (result === 0) model.punch(pos, len)
  else if (excused(w, result)) settlePunch(w, model, pos, len)
  else throw new Mismatch(`${kind} gives ${result}`)
}

/** Whether 3.19's tmpfs is what the file follows. */
function isTmpfs(w: World, model: ModelFile): boolean {
  return w.config.policy === POLICY_LINUX && model.keepsTail
}

/** Takes space, or zeroes it, and grows the file unless it is to keep its size. */
function falloc(w: World, { fd, model }: FuzzFile, pos: number, len: number, mode: number): void {
  const result = sys_fallocate(w.m, fd, mode, pos, len)
  const zeroes = (mode & FALLOC_FL_ZERO_RANGE) !== 0
  if (model.isLater || (zeroes && isTmpfs(w, model))) {
    refuse(`fallocate ${mode}`, result, model.isLater ? -EBADF : -EOPNOTSUPP)
    return
  }
  if (zeroes) {
    fileMayBeGone(w, model)
    cutBorrowed(w, model)
  }
  const size = w.m.inodes.sizeBytes[model.inode]
  const grown = (mode & FALLOC_FL_KEEP_SIZE) === 0 ? Math.max(model.size, pos + len) : model.size
  if (size === grown) model.truncate(size)
  if (result === 0) {
    if (size !== grown) throw new Mismatch(`fallocate ${mode} makes a file of ${model.size} bytes one of ${size}`)
    if (zeroes) model.punch(pos, len)
  } else if (zeroes && excused(w, result)) settlePunch(w, model, pos, len)
  else if (!(result === -ENOMEM && (w.armed || w.isTight)) && !excused(w, result)) {
    throw new Mismatch(`fallocate ${mode} gives ${result}`)
  }
}

/** Advice changes nothing that can be seen. */
function fadvise(w: World, { fd }: FuzzFile, pos: number, len: number, advice: number): void {
  const result = sys_fadvise(w.m, fd, pos, len, advice)
  const expected = advice > POSIX_FADV_NOREUSE ? -EINVAL : 0
  if (result !== expected) throw new Mismatch(`fadvise ${advice} gives ${result}`)
}

/** A punch that failed half way: each byte of its range is old or zero; the model takes what is there. */
function settlePunch(w: World, model: ModelFile, pos: number, len: number): void {
  const end = Math.min(pos + len, model.nrPages * w.pageSize)
  for (let at = pos; at < end; at++) {
    const index = Math.floor(at / w.pageSize)
    const page = w.peeker.filePage(model.inode, index)
    for (; at < end && at < (index + 1) * w.pageSize; at++) if (page[at % w.pageSize] === 0) model.bytes[at] = 0
    at--
  }
}

function fsync(w: World, { fd, store, model }: FuzzFile): void {
  const result = sys_fsync(w.m, fd)
  if (result !== 0) {
    if (result !== -EIO || !(w.armed || w.writesFailed)) throw new Mismatch(`fsync gives ${result}`)
    return
  }
  if (store !== undefined) compareStore(w, store.inner.size(), storedBytes(store.inner, model.size), model)
}

/** A file that can only be read refuses. */
function refuse(name: string, result: number, expected: number): void {
  if (result !== expected) throw new Mismatch(`${name} of a file that can only be read gives ${result}`)
}

function compareStore(w: World, size: number, bytes: Uint8Array, model: ModelFile): void {
  if (size !== model.size) throw new Mismatch(`the store has ${size} bytes after a sync, not ${model.size}`)
  w.compare('the store after a sync', bytes, model.bytes, model.size)
}

/** Its slot has another file by now, which a call by the old number must not reach. */
function mustBeClosed(w: World, fd: number): void {
  const buffer = new Uint8Array(1)
  const results = [
    sys_pread(w.m, fd, buffer, 0),
    sys_pwrite(w.m, fd, buffer, 0),
    sys_ftruncate(w.m, fd, 0),
    sys_close(w.m, fd)
  ]
  if (results.some(result => result !== -EBADF)) throw new Mismatch(`a closed descriptor gives ${results.join(', ')}`)
}

/** Closes the file, so that only its mappings hold it, and opens it again. */
function reopen(w: World, f: number): void {
  w.heal()
  const file = w.files[f]
  if (file.store === undefined) {
    const fd = sys_reopen(w.m, file.fd, file.model.isLater ? O_RDONLY : O_RDWR)
    if (fd < 0 || sys_close(w.m, file.fd) !== 0) throw new Mismatch(`reopen of memory gives ${fd}`)
    const again = sys_reopen(w.m, fd, O_RDONLY)
    mustBeClosed(w, file.fd)
    if (again < 0 || sys_close(w.m, again) !== 0) throw new Mismatch(`another open of memory gives ${again}`)
    file.fd = fd
    return
  }
  cutBorrowed(w, file.model)
  const before = file.model.inode
  const held = w.m.inodes.refs[before] > 1 || w.m.files.refs[fileOf(w.m, file.fd)] > 1
  const closed = file.fd
  const result = sys_close(w.m, closed)
  if (result !== 0) throw new Mismatch(`close gives ${result}`)
  if (!held) compareStore(w, file.store.inner.size(), storedBytes(file.store.inner, file.model.size), file.model)
  w.openStore(f)
  mustBeClosed(w, closed)
  if (held && file.model.inode !== before)
    throw new Mismatch('a mapped file has another inode after it was opened again')
  // What was past the end went with the cache.
  if (!held) file.model.forgetTail()
}
