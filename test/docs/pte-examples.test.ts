/**
 * The examples of docs/pte.md, recomputed: each line of a `pte` block is a call of src/pgtable/pte.ts and its result.
 */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { MAX_FRAME_BITS, MAX_FRAMES, PTE_FILE_MAX_BITS, PTE_FILE_MAX_PAGES } from '../../src/abi/limits.ts'
import * as pte from '../../src/pgtable/pte.ts'

const text = readFileSync(new URL('../../docs/pte.md', import.meta.url), 'utf8')

const NAMES: Readonly<Record<string, unknown>> = {
  ...pte,
  MAX_FRAME_BITS,
  MAX_FRAMES,
  PTE_FILE_MAX_BITS,
  PTE_FILE_MAX_PAGES
}

interface Example {
  readonly call: string
  readonly expected: string
}

function examplesIn(markdown: string): Example[] {
  const examples: Example[] = []
  for (const [, block] of markdown.matchAll(/^```pte\n([\s\S]*?)^```$/gm)) {
    for (const line of block.split('\n')) {
      if (line.trim() === '') continue
      const [call, expected, ...rest] = line.split('→').map(part => part.trim())
      if (expected === undefined || rest.length > 0) throw new Error(`not an example: ${line}`)
      examples.push({ call, expected })
    }
  }
  return examples
}

/** A number, a name, or several of them joined by `|`. */
function termValue(term: string): number {
  return term.split('|').reduce((sum, part) => {
    const name = part.trim()
    const value = /^[0-9]/.test(name) ? Number(name) : NAMES[name]
    if (typeof value !== 'number' || Number.isNaN(value)) throw new Error(`no number: ${name}`)
    return sum | value
  }, 0)
}

function resultOf(call: string): number | boolean {
  const match = /^(\w+)\((.*)\)$/.exec(call)
  if (match === null) return termValue(call)
  const [, name, args] = match
  const f = NAMES[name]
  if (typeof f !== 'function') throw new Error(`no function: ${name}`)
  return f(...args.split(',').map(termValue))
}

/** As the example is written: a word as eight hexadecimal digits of its 32 bits, all else as JavaScript prints it. */
function written(result: number | boolean, like: string): string {
  if (typeof result === 'boolean' || !like.startsWith('0x')) return String(result)
  return `0x${(result >>> 0).toString(16).padStart(8, '0')}`
}

const EXAMPLES = examplesIn(text)

describe('docs/pte.md', () => {
  test('has examples of every kind of entry', () => {
    const calls = EXAMPLES.map(({ call }) => call).join('\n')
    for (const name of ['mkPte', 'pgoffToPte', 'mkSwapPte', 'mkMigrationPte']) expect(calls).toContain(name)
  })

  test.each(EXAMPLES)('$call → $expected', ({ call, expected }) => {
    expect(written(resultOf(call), expected)).toBe(expected)
  })

  test('names every function and every flag of the decoder', () => {
    const unnamed = Object.keys(pte).filter(name => !text.includes(name))
    expect(unnamed).toEqual([])
  })
})
