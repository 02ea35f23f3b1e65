/** The fuzzer's remaps. */
import { EACCES, EINVAL } from '../../src/abi/errno.ts'
import * as abi from '../../src/abi/mman.ts'
import { INODE_STORE } from '../../src/cache/inodes.ts'
import { POLICY_LINUX } from '../../src/mm/machine.ts'
import { sys_remap_file_pages, sys_remap_file_pages_vec } from '../../src/syscall/fremap.ts'
import { VM_MAYWRITE, VM_NONLINEAR, VM_SHARED } from '../../src/vma/flags.ts'
import { dropUnmapped, flagsAt } from './effects.ts'
import { excused } from './excuses.ts'
import { Mismatch } from './mismatch.ts'
import type { OpOf } from './ops.ts'
import { mustBeSoft, noteMapped, notePopulated } from './soft-dirty.ts'
import type { FuzzSpace, World } from './world.ts'

export function remap(w: World, space: FuzzSpace, op: OpOf<'remap'>): void {
  const pgoffs = Array.from({ length: op.n }, (_, i) => op.pgoff + i)
  remapTo(w, space, w.vpnOf(op.p), pgoffs, true, op.prot, (address, prot, flags) =>
    sys_remap_file_pages(space.mm, address, w.address(op.n), prot, op.pgoff, flags | op.flags)
  )
}

export function remapVector(w: World, space: FuzzSpace, op: OpOf<'remapv'>): void {
  remapTo(w, space, w.vpnOf(op.p), op.pgoffs, false, op.prot, (address, prot, flags) =>
    sys_remap_file_pages_vec(space.mm, address, Int32Array.from(op.pgoffs), prot, flags | op.flags)
  )
}

function remapTo(
  w: World,
  space: FuzzSpace,
  vpn: number,
  pgoffs: readonly number[],
  isRun: boolean,
  prot: number,
  call: (address: number, prot: number, flags: number) => number
): void {
  // Linux knows no protection of a page's own, and no flag that would allow it.
  const knows = w.config.policy !== POLICY_LINUX
  const own = knows ? prot : -1
  let expected = expectedRemap(w, space, vpn, pgoffs.length, own)
  if (!knows && prot > 0) expected = -EINVAL
  const emulated = isEmulated(w, space, vpn)
  // In a mapping that is linear yet, pages at their linear place are left as they are.
  const isNothing =
    isRun && own < 0 && (flagsAt(w, space, vpn) & VM_NONLINEAR) === 0 && space.pages.get(vpn)?.linear === pgoffs[0]
  const result = call(w.address(vpn), Math.max(0, prot), prot < 0 ? 0 : abi.MAP_PAGE_PROT)
  if (result !== expected && !(expected === 0 && result < 0 && excused(w, result))) {
    throw new Mismatch(`remap gives ${result}, not ${expected}`)
  }
  notePopulated(space)
  if (expected === 0 && !isNothing) afterRemap(w, space, vpn, pgoffs, own, result, emulated)
}

/** Linux's emulation moves the linear place; ours never does. */
function isEmulated(w: World, space: FuzzSpace, vpn: number): boolean {
  const vma = w.m.vmas.at(space.mm.id, vpn)
  if (vma === 0 || w.config.policy !== POLICY_LINUX) return false
  return w.m.inodes.kind[w.m.vmas.inode[vma]] === INODE_STORE
}

function expectedRemap(w: World, space: FuzzSpace, vpn: number, n: number, own: number): number {
  const { vmas } = w.m
  const vma = vmas.at(space.mm.id, vpn)
  if (vma === 0 || (vmas.flags[vma] & VM_SHARED) === 0 || vpn + n > vmas.end[vma]) return -EINVAL
  return own >= 0 && (own & abi.PROT_WRITE) !== 0 && (vmas.flags[vma] & VM_MAYWRITE) === 0 ? -EACCES : 0
}

function afterRemap(
  w: World,
  space: FuzzSpace,
  vpn: number,
  pgoffs: readonly number[],
  prot: number,
  result: number,
  emulated: boolean
): void {
  if (emulated) {
    afterEmulated(w, space, vpn, pgoffs, result)
    return
  }
  for (let i = 0; i < pgoffs.length; i++) {
    const page = space.pages.get(vpn + i)
    if (page === undefined) continue
    // ENOMEM half way: the entries that were written are.
    if (result < 0 && !w.peeker.remembers(space.mm.id, vpn + i, pgoffs[i], prot)) continue
    page.pgoff = pgoffs[i]
    page.own = prot < 0 ? -1 : prot === abi.PROT_WRITE ? abi.PROT_READ | abi.PROT_WRITE : prot
    mustBeSoft(w, page)
  }
}

/** Linear mappings in the place of the pages that have changed. */
function afterEmulated(w: World, space: FuzzSpace, vpn: number, pgoffs: readonly number[], result: number): void {
  dropUnmapped(w, space, vpn, vpn + pgoffs.length)
  for (let i = 0; i < pgoffs.length; i++) {
    const page = space.pages.get(vpn + i)
    if (page === undefined) continue
    const vma = w.m.vmas.at(space.mm.id, vpn + i)
    if (result < 0 && w.m.vmas.linearIndex(vma, vpn + i) === page.linear) continue
    const isNew = page.linear !== pgoffs[i]
    page.linear = pgoffs[i]
    page.pgoff = pgoffs[i]
    page.own = -1
    if (isNew) noteMapped(w, space, vpn + i, 1)
  }
}
