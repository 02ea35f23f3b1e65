/**
 * The build being measured: what ships, the flattened `dist/fremap.js` and `dist/node.js`, loaded at run time. Never
 * the modules of `src/`, whose constants V8 does not fold across files; only their types are used here.
 */
import { access } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type * as Fremap from '../src/index.ts'
import type * as NodeFiles from '../src/stores/node-file.ts'

export type { AddressSpace, MappedFile, Mapping, Memory, MemoryStats, Mm, Store } from '../src/index.ts'

const USED = ['Memory', 'nodeFile', 'sys_remap_file_pages'] as const

/** The part of the interface that the benchmark uses. What came later may be missing from a build to compare with. */
export type Subject = Pick<typeof Fremap & typeof NodeFiles, (typeof USED)[number]> &
  Partial<Pick<typeof Fremap, 'ShadowTable' | 'Tlb'>> &
  Pick<typeof NodeFiles, 'nodeFiles'>

/** Linux's value; the system call's only flag. */
export const MAP_NONBLOCK = 0x10000
export const PAGE = 4096

/** Loads the build in `directory`, or says what is missing. */
export async function loadSubject(directory: string): Promise<Subject> {
  const found: Record<string, unknown> = {}
  for (const name of ['fremap.js', 'node.js']) {
    const path = join(directory, name)
    await access(path).catch(() => {
      throw new Error(`no ${name} in the build to measure; run npm run build first`)
    })
    Object.assign(found, await import(pathToFileURL(path).href))
  }
  for (const name of USED) {
    if (typeof found[name] !== 'function') throw new Error(`the build to measure does not export ${name}`)
  }
  return found as unknown as Subject
}
