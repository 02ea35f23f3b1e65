import { describe, expect, test } from 'vitest'
import { EIO, ENOMEM, ENOSPC } from '../../src/abi/errno.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { bytes, expectBytes, pattern, read, storeConformance } from '../stores/conformance.ts'
import { type FaultyOp, type FaultyStore, faultyStore } from './faulty-store.ts'

storeConformance('faultyStore with nothing armed', {
  open: () => faultyStore(memoryStore()),
  openReadOnly: contents => faultyStore(memoryStore({ contents, readOnly: true })),
  punch: 'works'
})

const OPS: FaultyOp[] = ['read', 'write', 'flush', 'truncate', 'punch']
const open = (): FaultyStore => faultyStore(memoryStore({ contents: pattern(4096) }))

/** One good call of `op`, such as any store takes. */
function call(store: FaultyStore, op: FaultyOp): number {
  if (op === 'flush') return store.flush()
  if (op === 'truncate') return store.truncate(4096)
  if (op === 'punch') return store.punch(0, 1)
  return store[op](0, new Uint8Array(1), 0, 1)
}

describe('faultyStore', () => {
  test.each(OPS)('error-once fails the n-th %s and no other', op => {
    const store = open()
    const good = call(store, op)
    const fault = store.arm({ kind: 'error-once', op, call: 2, errno: ENOMEM })
    expect([call(store, op), call(store, op), call(store, op)]).toEqual([good, -ENOMEM, good])
    expect(fault.fired).toBe(1)
    for (const other of OPS) expect(store.calls[other]).toBe(other === op ? 4 : 0)
  })

  test.each(OPS)('error-for-good fails each %s until disarmed, and does nothing', op => {
    const store = open()
    const fault = store.arm({ kind: 'error-for-good', op })
    expect([call(store, op), call(store, op)]).toEqual([-EIO, -EIO])
    expectBytes(read(store.inner as FaultyStore, 0, 5000), pattern(4096))
    fault.disarm()
    expect(call(store, op)).toBeGreaterThanOrEqual(0)
    expect(fault.fired).toBe(2)
  })

  test('no-space refuses growth alone', () => {
    const store = open()
    const fault = store.arm({ kind: 'no-space', call: 2 })
    expect(store.write(4096, bytes(1), 0, 1)).toBe(1)
    expect(store.write(4097, bytes(1), 0, 1)).toBe(-ENOSPC)
    expect(store.truncate(5000)).toBe(-ENOSPC)
    expect(store.write(4096, bytes(2), 0, 1)).toBe(1)
    expect(store.truncate(4096)).toBe(0)
    expect(fault.fired).toBe(2)
    store.heal()
    expect(store.write(4096, bytes(1), 0, 1)).toBe(1)
  })

  test('short-read leaves the rest of the range alone', () => {
    const store = open()
    store.arm({ kind: 'short-read', bytes: 100 })
    expectBytes(read(store, 0, 512), pattern(100))
    expectBytes(read(store, 0, 512), pattern(512))
  })

  test.each([
    [0, 300],
    [1, 512],
    [2, 1024],
    [9, 2300]
  ])('partial-write of %i sectors tears at byte %i of the store', (sectors, tear) => {
    const store = open()
    store.arm({ kind: 'partial-write', sectors, errno: ENOSPC })
    expect(store.write(300, new Uint8Array(2000), 0, 2000)).toBe(-ENOSPC)
    expectBytes(read(store, 0, 4096), pattern(4096).fill(0, 300, tear))
  })

  test('hooks run at their call, before and after the work, and may call the store', () => {
    const store = open()
    const seen: string[] = []
    const look = (when: string) => (): void => {
      seen.push(`${when}: ${read(store, 0, 1)[0]} ${store.log[1].result}`)
    }
    store.arm({ kind: 'hook', op: 'write', call: 2, run: look('before') })
    store.arm({ kind: 'hook', op: 'write', call: 2, when: 'after', run: look('after') })
    for (const value of [7, 8, 9]) expect(store.write(0, bytes(value), 0, 1)).toBe(1)
    expect(seen).toEqual(['before: 7 undefined', 'after: 8 1'])
    expect(store.calls).toEqual({ read: 2, write: 3, flush: 0, truncate: 0, punch: 0 })
  })

  test('what a hook throws reaches the test', () => {
    const store = open()
    const run = (): never => {
      throw new Error('stop here')
    }
    store.arm({ kind: 'hook', op: 'flush', run })
    expect(() => store.flush()).toThrow('stop here')
    expect(store.flush()).toBe(0)
  })

  test('the first armed decides; all that meet the call have fired', () => {
    const store = open()
    const faults = [ENOMEM, EIO].map(errno => store.arm({ kind: 'error-once', op: 'read', errno }))
    expect(call(store, 'read')).toBe(-ENOMEM)
    expect(call(store, 'read')).toBe(1)
    expect(faults.map(fault => fault.fired)).toEqual([1, 1])
  })

  test('the log tells what was asked, where, and what came of it', () => {
    const store = open()
    store.arm({ kind: 'error-once', op: 'flush' })
    for (const op of OPS) call(store, op)
    expect(store.log).toEqual([
      { op: 'read', position: 0, length: 1, result: 1 },
      { op: 'write', position: 0, length: 1, result: 1 },
      { op: 'flush', position: 0, length: 0, result: -EIO },
      { op: 'truncate', position: 4096, length: 0, result: 0 },
      { op: 'punch', position: 0, length: 1, result: 0 }
    ])
  })

  test('calls are counted from 1', () => {
    expect(() => open().arm({ kind: 'error-once', op: 'read', call: 0 })).toThrow(RangeError)
  })
})
