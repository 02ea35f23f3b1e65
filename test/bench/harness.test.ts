import { describe, expect, test, vi } from 'vitest'
import {
  compare,
  inBlocks,
  type Row,
  type RowResult,
  runRow,
  type Sample,
  type Side,
  Skip,
  timed
} from '../../bench/harness.ts'
import { fold, permutation, remapCalls, stamp, xorshift32 } from '../../bench/random.ts'
import {
  describeMachine,
  formatNumber,
  formatReach,
  formatReport,
  formatTable,
  formatVerdict
} from '../../bench/report.ts'
import { median, pairwiseRatio, quantile, type Reach, ratio, spread, verdict } from '../../bench/statistics.ts'

type TestRow = Row<undefined, 'build'>

function side(values: readonly number[], checksum = 1, log?: string[], name = ''): Side {
  let round = 0
  return {
    run: () => {
      log?.push(name)
      return { value: values[round++ % values.length], checksum }
    },
    cleanup: () => {
      log?.push(`cleanup ${name}`)
    }
  }
}

function row(changes: Partial<TestRow> = {}): TestRow {
  return {
    name: 'group/row',
    what: 'something',
    against: 'something else',
    unit: 'ns/page',
    sense: 'cost',
    reach: { ratio: 1.5, better: 'lower' },
    ours: () => side([3]),
    theirs: () => side([2]),
    ...changes
  }
}

function samples(...values: number[]): Sample[] {
  return values.map(value => ({ value, checksum: 1 }))
}

describe('statistics', () => {
  test('the median does not depend on the order and leaves the samples as they were', () => {
    const values = [10, 9, 100, 1]
    expect(median(values)).toBe(9.5)
    expect(median([3, 1, 2])).toBe(2)
    expect(median([5])).toBe(5)
    expect(values).toEqual([10, 9, 100, 1])
  })

  test('numbers are sorted as numbers', () => {
    expect(median([9, 10, 100])).toBe(10)
  })

  test('quantiles are interpolated; no samples is an error, not NaN', () => {
    expect(quantile([0, 10], 0.25)).toBe(2.5)
    expect(spread([4, 1, 3, 2, 5])).toEqual({ median: 3, min: 1, max: 5, q1: 2, q3: 4 })
    expect(() => median([])).toThrow(RangeError)
  })

  test('a ratio is in the direction of the reach', () => {
    expect(ratio(30, 20, 'cost', 'lower')).toBe(1.5)
    expect(ratio(10, 200, 'cost', 'higher')).toBe(20)
    expect(ratio(200, 10, 'count', 'higher')).toBe(20)
    expect(ratio(10, 20, 'count', 'lower')).toBe(0.5)
  })

  test('the pair-wise ratio is steady under drift that hits both sides', () => {
    const ours = [10, 20, 40, 80]
    const theirs = [5, 10, 20, 40]
    expect(pairwiseRatio(ours, theirs, 'cost', 'lower')).toBe(2)
    expect(pairwiseRatio(ours, theirs, 'cost', 'higher')).toBe(0.5)
    expect(() => pairwiseRatio([1], [1, 2], 'cost', 'lower')).toThrow(RangeError)
  })

  test.each<[number, Reach, number]>([
    [1.5, { ratio: 1.5, better: 'lower' }, 1],
    [1.8, { ratio: 1.5, better: 'lower' }, 1.2],
    [15, { ratio: 15, better: 'higher' }, 1],
    [12, { ratio: 15, better: 'higher' }, 1.25],
    [128, { value: 64, better: 'lower' }, 2],
    [5e6, { value: 1e7, better: 'higher' }, 2]
  ])('verdict of %d against %o is short by %d', (figure, reach, shortBy) => {
    const found = verdict(figure, reach)
    expect(found.reached).toBe(shortBy === 1)
    expect(found.shortBy).toBeCloseTo(shortBy, 12)
  })
})

describe('inputs', () => {
  test('a permutation has each number once, and the same seed gives the same one', () => {
    const p = permutation(1000, 7)
    expect([...p].sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => i))
    expect(permutation(1000, 7)).toEqual(p)
    expect(permutation(1000, 8)).not.toEqual(p)
  })

  test('xorshift32 gives what Marsaglia’s triple 13, 17, 5 gives, unsigned', () => {
    const next = xorshift32(1)
    expect([next(), next()]).toEqual([270369, 67634689])
    expect(() => xorshift32(0)).toThrow(RangeError)
  })

  test('remap calls draw the window page first', () => {
    const next = xorshift32(3)
    const { at, page } = remapCalls(100, 2, 3)
    const drawn = [next(), next(), next(), next()].map(x => x % 100)
    expect([at[0], page[0], at[1], page[1]]).toEqual(drawn)
  })

  test('stamps are unsigned words and the checksum depends on the order', () => {
    expect(stamp(0)).toBe(1)
    expect(stamp(1)).toBe(0x9e3779b2)
    expect(fold(fold(0, stamp(1)), stamp(2))).not.toBe(fold(fold(0, stamp(2)), stamp(1)))
  })
})

describe('runner', () => {
  test('the sides take turns, the warm-up does not count, and both are cleaned up', async () => {
    const log: string[] = []
    const result = await runRow(
      row({ ours: () => side([1000, 6, 6], 1, log, 'A'), theirs: () => side([1, 4, 8], 1, log, 'B') }),
      undefined,
      'build',
      { rounds: 2, warmups: 1, warmupMs: 0 }
    )
    expect(log).toEqual(['A', 'B', 'A', 'B', 'A', 'B', 'cleanup B', 'cleanup A'])
    expect(result.status).toBe('measured')
    expect(result.ours?.samples).toEqual([6, 6])
    expect(result.theirs?.samples).toEqual([4, 8])
    expect(result.ratioOfMedians).toBe(1)
    expect(result.pairwiseRatio).toBe((6 / 4 + 6 / 8) / 2)
    expect(result.verdict).toEqual({ reached: true, shortBy: 1 })
  })

  test('sides that find different things give no figures', async () => {
    const options = { rounds: 1, warmups: 0, warmupMs: 0 }
    const result = await runRow(row({ ours: () => side([1], 2) }), undefined, 'build', options)
    expect(result.status).toBe('checksum')
    expect(result.reason).toContain('ours 2, theirs 1')
    expect(result.ours).toBeUndefined()
    expect(result.verdict).toBeUndefined()
  })

  test('a checksum that changes between the rounds of one side is caught, also during the warm-up', async () => {
    let round = 0
    const ours: Side = { run: () => ({ value: 1, checksum: round++ }), cleanup: () => {} }
    const { theirs: _, ...alone } = row({ ours: () => ours })
    expect((await runRow(alone, undefined, 'build', { rounds: 1, warmups: 1, warmupMs: 0 })).status).toBe('checksum')
  })

  test('a side that cannot run here is skipped with its reason, one that throws has failed', async () => {
    const options = { rounds: 1, warmups: 0, warmupMs: 0 }
    const skip = (): Side => {
      throw new Skip('no compiler')
    }
    const log: string[] = []
    const skipped = await runRow(row({ theirs: skip }), undefined, 'build', options)
    expect([skipped.status, skipped.reason]).toEqual(['skipped', 'no compiler'])
    const thrower: Side = {
      run: () => {
        throw new Error('disk on fire')
      },
      cleanup: () => {}
    }
    const failing = row({ ours: () => thrower, theirs: () => side([1], 1, log, 'B') })
    const failed = await runRow(failing, undefined, 'build', options)
    expect([failed.status, failed.reason]).toEqual(['failed', 'disk on fire'])
    expect(log).toEqual(['cleanup B'])
  })

  test('without a build only the other side runs and there is no verdict', async () => {
    const result = await runRow(row(), undefined, undefined, { rounds: 3, warmups: 0, warmupMs: 0 })
    expect(result.status).toBe('baseline')
    expect(result.theirs?.median).toBe(2)
    expect([result.ours, result.pairwiseRatio, result.verdict]).toEqual([undefined, undefined, undefined])
  })

  test('a reach by value is judged by our median alone', () => {
    const byValue = row({ sense: 'count', reach: { value: 1000, better: 'higher' } })
    const result = compare(byValue, samples(400, 500, 600), samples(10, 10, 10))
    expect(result.verdict).toEqual({ reached: false, shortBy: 2 })
    expect(result.ratioOfMedians).toBe(50)
  })

  test('phases are medians by name', () => {
    const phased = [1, 5, 3].map((write): Sample => ({ value: 1, checksum: 1, phases: { write } }))
    expect(compare(row(), phased, samples(1, 1, 1)).ours?.phases).toEqual({ write: 3 })
  })

  test('blocks cover every index once, in order, and hand the checksum on', () => {
    const seen: number[] = []
    const count = inBlocks(2500, seen, (state, from, to, start) => {
      for (let i = from; i < to; i++) state.push(i)
      return start + to - from
    })
    expect(count).toBe(2500)
    expect(seen).toEqual(Array.from({ length: 2500 }, (_, i) => i))
  })

  test('the warm-up goes on until its time has passed', async () => {
    vi.useFakeTimers({ toFake: ['performance'] })
    try {
      let runs = 0
      const slow: Side = {
        run: () => {
          runs++
          vi.advanceTimersByTime(5)
          return { value: 1, checksum: 1 }
        },
        cleanup: () => {}
      }
      const { theirs: _, ...alone } = row({ ours: () => slow })
      const result = await runRow(alone, undefined, 'build', { rounds: 2, warmups: 1, warmupMs: 30 })
      expect(runs).toBe(6 + 2)
      expect(result.ours?.samples).toHaveLength(2)
    } finally {
      vi.useRealTimers()
    }
  })

  test('timed gives ns for each operation and an unsigned checksum', () => {
    const sample = timed(1000, () => {
      const end = performance.now() + 2
      while (performance.now() < end);
      return -1
    })
    expect(sample.value).toBeGreaterThanOrEqual(2000)
    expect(sample.checksum).toBe(0xffffffff)
  })
})

describe('report', () => {
  test('numbers have three digits', () => {
    const shown = [0, 0.01234, 1.5, 2, 41.26, 412.4, 4126, 9999, 65_507, 999_999, 10_000_000].map(formatNumber)
    const expected = ['0', '0.0123', '1.50', '2', '41.3', '412', '4130', '10k', '65.5k', '1M', '10M']
    expect(shown).toEqual(expected)
    expect(formatNumber(Number.NaN)).toBe('NaN')
  })

  test('a reach says which way it goes', () => {
    expect(formatReach({ ratio: 1.5, better: 'lower' })).toBe('<= 1.5x')
    expect(formatReach({ value: 10_000_000, better: 'higher' })).toBe('>= 10M')
  })

  test('columns are aligned and lines do not end in spaces', () => {
    const columns = [
      { title: 'row', align: 'left' },
      { title: 'ns', align: 'right' },
      { title: 'verdict', align: 'left' }
    ] as const
    const table = formatTable(columns, [
      ['a', '1000', 'reached'],
      ['longer', '7', '-']
    ])
    expect(table.split('\n')).toEqual([
      'row       ns  verdict',
      '------  ----  -------',
      'a       1000  reached',
      'longer     7  -'
    ])
  })

  test.each<[Partial<RowResult>, string]>([
    [{ status: 'skipped' }, 'SKIPPED'],
    [{ status: 'checksum' }, 'CHECKSUM DIFFERS'],
    [{ status: 'failed' }, 'FAILED'],
    [{ status: 'baseline' }, '-'],
    [{ verdict: { reached: true, shortBy: 1 } }, 'reached'],
    [{ verdict: { reached: false, shortBy: 1.25 } }, 'short by 1.25x']
  ])('%o reads %s', (changes, text) => {
    expect(formatVerdict({ ...compare(row(), samples(1), samples(1)), verdict: undefined, ...changes })).toBe(text)
  })

  test('the text names each row that has no figures, and the JSON keeps every sample', async () => {
    const options = { rounds: 2, warmups: 0, warmupMs: 0 }
    const skip = (): Side => {
      throw new Skip('no compiler')
    }
    const skipped = await runRow(row({ name: 'linux/cycle', theirs: skip }), undefined, 'build', options)
    const measured = await runRow(row(), undefined, 'build', options)
    const report = {
      format: 1,
      date: '2000-01-01T00:00:00.000Z',
      machine: describeMachine(),
      rounds: 2,
      warmups: 0,
      quick: false,
      rows: [skipped, measured],
      series: []
    } as const
    const text = formatReport(report)
    expect(text).toContain('NOT MEASURED\n  linux/cycle: SKIPPED: no compiler\n')
    expect(text).toMatch(/^group\/row +ns\/page +3 +3\.\.3 +2 +2\.\.2 +1\.50x +1\.50x +<= 1\.5x +reached$/m)

    const parsed = JSON.parse(JSON.stringify(report))
    expect(Object.keys(parsed)).toEqual(['format', 'date', 'machine', 'rounds', 'warmups', 'quick', 'rows', 'series'])
    expect(parsed.machine).toMatchObject({ node: process.version, cores: expect.any(Number), cpu: expect.any(String) })
    expect(parsed.machine.kernel).toContain(process.platform)
    expect(parsed.rows[0]).toMatchObject({ name: 'linux/cycle', status: 'skipped', reason: 'no compiler' })
    expect(parsed.rows[1]).toMatchObject({
      name: 'group/row',
      unit: 'ns/page',
      reach: { ratio: 1.5, better: 'lower' },
      status: 'measured',
      ours: { samples: [3, 3], median: 3, min: 3, max: 3 },
      theirs: { samples: [2, 2], median: 2 },
      ratioOfMedians: 1.5,
      pairwiseRatio: 1.5,
      verdict: { reached: true, shortBy: 1 }
    })
  })
})
