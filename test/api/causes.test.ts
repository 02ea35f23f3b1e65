/** Errors of a store that throws carry what it threw as their cause; those of one that answers an errno carry none. */
import { expect, test } from 'vitest'
import { EIO } from '../../src/abi/errno.ts'
import { Memory, memoryStore, type Store } from '../../src/index.ts'

const PAGE = 4096

/** A store of two pages whose calls do what `calls` says meanwhile. */
function troubled(calls: Partial<Pick<Store, 'read' | 'write' | 'flush' | 'truncate' | 'punch'>>): Store {
  return Object.assign(memoryStore({ contents: new Uint8Array(2 * PAGE) }), calls)
}

function errorOf(act: () => unknown): unknown {
  try {
    act()
  } catch (error) {
    return error
  }
  throw new Error('it threw nothing')
}

test('what a store throws is the cause of the fault, of a read and of a bulk read', () => {
  using memory = new Memory({ size: '1MiB' })
  const broken = new Error('the head is stuck')
  const read = (): number => {
    throw broken
  }
  const file = memory.open(troubled({ read }))
  const map = memory.space().map(file)
  for (const access of [
    () => map.getUint8(PAGE),
    () => map.read(new Uint8Array(8), 0),
    () => file.read(new Uint8Array(8), 0)
  ])
    expect(errorOf(access)).toMatchObject({ errno: -EIO, cause: broken })
})

test('and of a sync, a truncation and a punch', () => {
  using memory = new Memory({ size: '1MiB' })
  const thrown: Error[] = []
  const broken = (): number => {
    thrown.push(new Error(`failure ${thrown.length}`))
    throw thrown[thrown.length - 1]
  }
  const store = troubled({ write: broken, truncate: broken, punch: broken })
  const file = memory.open(store)
  const map = memory.space().map(file, { writable: true })
  map.setUint8(0, 1)
  for (const call of [() => file.sync(), () => file.truncate(5), () => file.punch(0, PAGE)]) {
    const error = errorOf(call)
    expect(error).toMatchObject({ code: 'EIO' })
    expect((error as Error).cause).toBe(thrown[thrown.length - 1])
  }
  expect(thrown).toHaveLength(3)
  Object.assign(store, { write: memoryStore({ contents: new Uint8Array(2 * PAGE) }).write })
})

test('an errno that the store answers has no cause, also not that of an earlier call', () => {
  using memory = new Memory({ size: '1MiB' })
  const broken = new Error('once')
  let throws = true
  const read = (): number => {
    if (throws) throw broken
    return -EIO
  }
  const map = memory.space().map(memory.open(troubled({ read })))
  expect(errorOf(() => map.getUint8(0))).toMatchObject({ cause: broken })
  throws = false
  const second = errorOf(() => map.getUint8(0))
  expect(second).toMatchObject({ errno: -EIO })
  expect(second).not.toHaveProperty('cause')
})
