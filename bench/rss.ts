/**
 * A process of its own for the row memory/rss, so that nothing else grows or shrinks: fills a memory of the build
 * in argv[2] with a permuted window of argv[3] pages, and prints by how many bytes it grew.
 */
import { permutation } from './random.ts'
import { loadSubject, PAGE } from './subject.ts'

const { Memory } = await loadSubject(process.argv[2])
const pages = Number(process.argv[3])
const shown = permutation(pages)
const before = process.memoryUsage.rss()
const memory = new Memory({ size: Math.ceil(pages * PAGE * 1.0625) + 4 * 2 ** 20 })
const map = memory.space().map(memory.shared(pages * PAGE), { writable: true })
map.remapPages(0, shown)
for (let i = 0; i < pages; i++) map.setUint32(i * PAGE, i + 1)
process.stdout.write(`${process.memoryUsage.rss() - before}\n`)
