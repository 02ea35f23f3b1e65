import { describe, expect, test } from 'vitest'
import { DurableModel } from '../../tools/crash/durable-model.ts'
import { losePower, shrink } from '../../tools/crash/power.ts'
import { type Faults, type Op, pattern, randomConfig, randomProgram } from '../../tools/crash/program.ts'
import { rounds } from '../support/suite.ts'

const NR_PROGRAMS = rounds(6, 24)
const start = 1 + (Date.now() % 1_000_000)

describe('after power loss the store has what was acknowledged, and else each sector old or new', () => {
  test.each<Faults>(['without faults', 'with faults'])(`programs from seed ${start} on, %s`, faults => {
    let images = 0
    let syncs = 0
    for (let seed = start; seed < start + NR_PROGRAMS; seed++) {
      const config = randomConfig(seed)
      const result = losePower(config, randomProgram(config, seed, 80, faults), { samples: 30, seed })
      expect(result.violation, `seed ${seed}, ${faults}`).toBeUndefined()
      images += result.nrImages
      syncs += result.nrSyncs
    }
    expect(images).toBeGreaterThan(NR_PROGRAMS * 20)
    expect(syncs).toBeGreaterThan(NR_PROGRAMS * 2)
  })
})

test('shrinking leaves the operations that matter', () => {
  const program: Op[] = randomProgram(randomConfig(1), 1, 40, 'without faults')
  const first = program.findIndex(op => op.op === 'fsync')
  const small = shrink(program, part => part.includes(program[first]) && part.includes(program[3]))
  expect(small).toEqual([program[3], program[first]].sort((a, b) => program.indexOf(a) - program.indexOf(b)))
})

describe('the model', () => {
  const PAGE = 1024
  const model = () => new DurableModel(8 * PAGE, PAGE, pattern(1, 2 * PAGE))
  const image = (bytes: Uint8Array, change: (bytes: Uint8Array) => void = () => {}) => {
    const copy = bytes.slice()
    change(copy)
    return copy
  }

  test('takes old and new sectors, and no third', () => {
    const m = model()
    const old = image(m.bytes.subarray(0, m.size))
    m.write(512, pattern(2, 512))
    m.write(512, pattern(3, 512))
    const now = image(m.bytes.subarray(0, m.size))
    expect(m.check(old, 0)).toBeUndefined()
    expect(m.check(now, 0)).toBeUndefined()
    expect(
      m.check(
        image(old, b => b.set(pattern(2, 512), 512)),
        0
      )
    ).toBeUndefined()
    expect(
      m.check(
        image(old, b => b.set(pattern(2, 511), 512)),
        0
      )
    ).toMatch('sector 1 (one of 3 values)')
    expect(
      m.check(
        image(old, b => b.fill(0, 0, 1)),
        0
      )
    ).toMatch('sector 0 (not written since)')
  })

  test('holds the acknowledged against every image after it, and against none before', () => {
    const m = model()
    const old = image(m.bytes.subarray(0, m.size))
    m.write(0, pattern(2, 512))
    m.syncedAll(5)
    expect(m.check(old, 4)).toBeUndefined()
    expect(m.check(old, 5)).toMatch('after sync 1 of 1: sector 0')
  })

  test('a range sync leaves the rest uncertain', () => {
    const m = model()
    const old = image(m.bytes.subarray(0, m.size))
    m.write(0, pattern(2, 2 * PAGE))
    m.syncedRange(3, PAGE, 2 * PAGE)
    expect(
      m.check(
        image(m.bytes.subarray(0, m.size), b => b.set(old.subarray(0, PAGE))),
        3
      )
    ).toBeUndefined()
    expect(m.check(old, 3)).toMatch('sector 2')
  })

  test('the size is one that was set, or at the end of a page that the file grew by', () => {
    const m = model()
    m.write(2 * PAGE, pattern(2, 3 * PAGE + 5))
    const grown = image(m.bytes.subarray(0, m.size))
    expect(m.check(grown, 0)).toBeUndefined()
    expect(m.check(grown.subarray(0, 4 * PAGE), 0)).toBeUndefined()
    expect(m.check(grown.subarray(0, 4 * PAGE + 1), 0)).toMatch('the size is 4097')
    expect(m.check(grown.subarray(0, PAGE), 0)).toMatch('the size is 1024')
    m.truncate(700)
    expect(m.check(grown.subarray(0, 700), 0)).toBeUndefined()
    m.syncedAll(9)
    expect(m.check(grown, 9)).toMatch('not one of 700')
  })
})
