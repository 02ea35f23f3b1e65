/**
 * The fixed scenario: 60 steps that use every call that can reach a store or take a frame, on a machine so small that
 * most of them evict something. The last steps leave dirty pages behind.
 */
import { PAGE } from './model.ts'
import type { World } from './world.ts'

export type Step = readonly [name: string, run: (w: World) => void]

const all = (w: World, name: string, touch: (page: number) => void) => {
  const pages = w.windows.get(name)?.pages.length ?? 0
  for (let page = 0; page < pages; page++) touch(page)
}
const loadAll = (name: string): Step => [`load ${name}`, w => all(w, name, page => w.load(name, page))]
const storeAll = (name: string): Step => [`store ${name}`, w => all(w, name, page => w.store(name, page, page * 8))]
const map = (name: string, what: string | null, how: 'shared' | 'private', pages: number): Step => [
  `map ${name}`,
  w => w.map(name, 'main', what, how, 0, pages)
]

export const SCENARIO: readonly Step[] = [
  ['open', w => w.open('disk', 24)],
  map('linear', 'disk', 'shared', 34),
  map('window', 'disk', 'shared', 16),
  ['load the first pages in order', w => [0, 1, 2, 3, 4].forEach(page => void w.load('linear', page))],
  ['remap and populate', w => w.remap('window', 0, 8, 4, 'populate')],
  ['store through the window', w => w.store('window', 1)],
  ['store', w => w.store('linear', 2, 600)],
  ['write', w => w.write('disk', 5 * PAGE + 100, 3000)],
  ['remap a vector', w => w.remapVector('window', 4, [20, 3, 17, 0])],
  ['store at file page 3', w => w.store('window', 5, 40)],
  ['msync a range', w => w.msync('linear', 0, 6)],
  ['read the file', w => w.read('disk', 0, 24 * PAGE)],
  ['shared memory', w => w.memory('memory', 12)],
  map('shared', 'memory', 'shared', 12),
  storeAll('shared'),
  map('heap', null, 'private', 24),
  storeAll('heap'),
  loadAll('shared'),
  map('copies', 'disk', 'private', 8),
  ['store to private pages', w => [1, 3, 6].forEach(page => void w.store('copies', page))],
  ['fork', w => w.fork('child')],
  ['copy on write in the child', w => [0, 1, 2, 20].forEach(page => void w.store('child:heap', page))],
  ['copy on write in the parent', w => [1, 2, 3].forEach(page => void w.store('heap', page))],
  ['store to the child’s private page', w => w.store('child:copies', 3, 100)],
  ['store through the child’s window', w => w.store('child:window', 2)],
  ['fsync', w => w.fsync('disk')],
  ['truncate', w => w.truncate('disk', 15 * PAGE + 200)],
  ['load past the end', w => [4, 5].forEach(page => void w.load('window', page))],
  ['truncate to a larger size', w => w.truncate('disk', 26 * PAGE)],
  ['store past the old end', w => w.store('linear', 25)],
  ['write past the end', w => w.write('disk', 30 * PAGE, 1500)],
  ['read all of it', w => w.read('disk', 0, 34 * PAGE)],
  ['punch', w => w.punch('disk', 2 * PAGE + 100, 4 * PAGE)],
  ['load the hole', w => [2, 3, 4, 5, 6].forEach(page => void w.load('linear', page))],
  ['fsync the hole', w => w.fsync('disk')],
  ['write at the end', w => w.write('disk', 31 * PAGE, 2 * PAGE)],
  ['punch the end', w => w.punch('disk', 31 * PAGE, 2 * PAGE)],
  ['msync the beginning', w => w.msync('linear', 0, 2)],
  ['mremap the window', w => w.resize('window', 20)],
  ['store to the new part', w => w.store('window', 18)],
  ['mremap the heap', w => w.resize('heap', 30)],
  ['store to its new part', w => w.store('heap', 28)],
  ['mlock', w => w.lock('linear', 0, 3)],
  ['store to a locked page', w => w.store('linear', 1, 300)],
  ['munlock', w => w.unlock('linear', 0, 3)],
  ['forget part of the heap', w => w.dontNeed('heap', 3, 4)],
  loadAll('heap'),
  ['forget part of the window', w => w.dontNeed('window', 0, 8)],
  loadAll('window'),
  ['remap shared memory', w => w.remap('shared', 0, 6, 3, 'later')],
  loadAll('shared'),
  loadAll('child:heap'),
  ['fork again', w => w.fork('twin')],
  ['store in the twin', w => [0, 6].forEach(page => void w.store('twin:copies', page, 8))],
  ['exit the twin', w => w.exit('twin')],
  ['msync the window', w => w.msync('window', 0, 2)],
  ['munmap the copies', w => w.unmap('copies')],
  ['close, still mapped', w => w.close('disk')],
  ['store with the file closed', w => w.store('linear', 6)],
  ['munmap the window', w => w.unmap('window')],
  ['munmap', w => w.unmap('linear')],
  ['store in the child', w => [7, 22].forEach(page => void w.store('child:linear', page, 50))],
  ['exit the child, and with it the file', w => w.exit('child')],
  ['open again', w => w.open('disk', 24)],
  ['write again', w => w.write('disk', 9 * PAGE + 10, 2500)],
  ['close with changes', w => w.close('disk')],
  ['open once more', w => w.open('disk', 24)],
  map('last', 'disk', 'shared', 20),
  ['store once more', w => w.store('last', 3)],
  ['close, mapped once more', w => w.close('disk')],
  ['munmap, and with it the file', w => w.unmap('last')],
  ['open for good', w => w.open('disk', 24)],
  map('linear', 'disk', 'shared', 24),
  loadAll('linear'),
  ['store for good', w => [1, 2, 3, 9].forEach(page => void w.store('linear', page, 77))],
  ['fsync for good', w => w.fsync('disk')],
  ['leave something dirty', w => w.store('linear', 4)],
  ['leave something written', w => w.write('disk', 12 * PAGE + 5, 1100)],
  loadAll('heap')
]
