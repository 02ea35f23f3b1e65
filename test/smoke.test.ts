import { expect, test } from 'vitest'
import { createKernel } from '../src/kernel.ts'
import { memoryStore } from '../src/stores/memory.ts'
import type { Mm } from '../src/syscall/args.ts'
import * as f from '../src/syscall/file.ts'
import { sys_remap_file_pages } from '../src/syscall/fremap.ts'
import * as mem from '../src/syscall/memory.ts'
import { sys_mm_create } from '../src/syscall/process.ts'

test('a window over a file larger than memory', () => {
  const { machine: m } = createKernel({ nrFrames: 16 })
  const store = memoryStore({ sizeBytes: 256 * 4096 })
  const page = new Uint8Array(4096)
  for (let i = 0; i < 256; i++) {
    new Uint32Array(page.buffer)[0] = i + 1
    store.write(i * 4096, page, 0, 4096)
  }
  const mm = sys_mm_create(m) as Mm
  const fd = f.sys_open(m, store, f.O_RDWR)
  const at = mem.sys_mmap(mm, 0, 256 * 4096, 3, 1, fd, 0)
  expect(at).toBeGreaterThan(0)
  for (let i = 0; i < 256; i++) expect(sys_remap_file_pages(mm, at + i * 4096, 4096, 0, (i * 7) % 256, 0x10000)).toBe(0)
  const b = new Uint8Array(4)
  for (let round = 0; round < 3; round++)
    for (let i = 0; i < 256; i++) {
      expect(f.sys_copy_from_user(mm, at + i * 4096, b)).toBe(4)
      expect(new Uint32Array(b.buffer)[0]).toBe((round === 0 ? 1 : 1000) + ((i * 7) % 256))
      new Uint32Array(b.buffer)[0] = 1000 + ((i * 7) % 256)
      expect(f.sys_copy_to_user(mm, at + i * 4096, b)).toBe(4)
    }
  expect(mem.sys_msync(mm, at, 256 * 4096, 4)).toBe(0)
  for (let i = 0; i < 256; i++) {
    store.read(i * 4096, page, 0, 4096)
    expect(new Uint32Array(page.buffer)[0]).toBe(1000 + i)
  }
  expect(mem.sys_munmap(mm, at, 256 * 4096)).toBe(0)
  expect(f.sys_close(m, fd)).toBe(0)
  expect(m.allocator.nrFree).toBe(15)
})
