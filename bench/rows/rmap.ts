/**
 * What it costs to take one page away from all who map it, or to make it clean for all: it should grow with the
 * mappers of that page, and not with the size of their windows. Finding them by walking each nonlinear window whole is
 * what Linux had to do. Each mapper is a window of its own that shows the page at a random place.
 */
import type { BenchRow, Context } from '../context.ts'
import { cell, inBlocks, type Sample, type Side, Skip } from '../harness.ts'
import { fold, SEED, xorshift32 } from '../random.ts'
import { NullStore } from '../stores.ts'
import { type AddressSpace, type MappedFile, type Mapping, type Memory, PAGE, type Subject } from '../subject.ts'

const MIB = 2 ** 20
const GIB = 2 ** 30
const MEMORY_BYTES = 64 * MIB
/** An address space holds 8 TiB. */
const WINDOWS_PER_SPACE = 64
const MAPPERS = [1, 10, 1000]
const WINDOWS = [MIB, 64 * MIB, GIB, 64 * GIB]
/** Page operations that one figure is the mean of, in mappers: fewer mappers, more often. */
const MAPPERS_TIMED = 2000

const windowName = (bytes: number): string => (bytes >= GIB ? `${bytes / GIB} GiB` : `${bytes / MIB} MiB`)
const mappersName = (count: number): string => `${count} ${count === 1 ? 'mapper' : 'mappers'}`

/** The operation on one page: what it works on, what comes before each time, and itself. */
interface Verb {
  open(memory: Memory, fileBytes: number): MappedFile
  touch(mapping: Mapping, offset: number, round: number): number
  act(file: MappedFile, position: number): void
}

const PUNCH: Verb = {
  open: (memory, fileBytes) => memory.shared(fileBytes),
  touch: (mapping, offset) => {
    const seen = mapping.getUint32(offset)
    mapping.setUint32(offset, seen + 1)
    return seen
  },
  act: (file, position) => file.punch(position, PAGE)
}

const CLEAN: Verb = {
  open: (memory, fileBytes) => memory.open(new NullStore(fileBytes)),
  touch: (mapping, offset, round) => {
    mapping.setUint32(offset, round)
    return round
  },
  act: file => file.sync()
}

interface Scene {
  /** ns of one operation, and what all the mappers saw. */
  play(rounds: number): Sample
  close(): void
}

function scene(subject: Subject, verb: Verb, mappers: number, windowBytes: number): Scene {
  const memory = new subject.Memory({ size: MEMORY_BYTES, readahead: 0, faultAroundPages: 1 })
  const file = verb.open(memory, windowBytes)
  const next = xorshift32(SEED + 4)
  const pages = windowBytes / PAGE
  const page = next() % pages
  const maps: Mapping[] = []
  const offsets = new Float64Array(mappers)
  let space: AddressSpace | undefined
  for (let i = 0; i < mappers; i++) {
    if (space === undefined || i % WINDOWS_PER_SPACE === 0) space = memory.space()
    const at = next() % pages
    const map = space.map(file, { writable: true })
    map.remap({ at, page, count: 1 })
    maps.push(map)
    offsets[i] = at * PAGE
  }
  const play = (rounds: number): Sample => {
    let elapsed = 0
    let checksum = 0
    for (let round = 1; round <= rounds; round++) {
      checksum = fold(checksum, inBlocks(mappers, { verb, maps, offsets, round }, touchBlock))
      const start = performance.now()
      verb.act(file, page * PAGE)
      elapsed += performance.now() - start
    }
    return { value: (elapsed * 1e6) / rounds, checksum: checksum >>> 0 }
  }
  return { play, close: () => memory.close() }
}

interface Touches {
  readonly verb: Verb
  readonly maps: readonly Mapping[]
  readonly offsets: Float64Array
  readonly round: number
}

function touchBlock({ verb, maps, offsets, round }: Touches, from: number, to: number, start: number): number {
  let checksum = start | 0
  for (let i = from; i < to; i++) checksum = fold(checksum, verb.touch(maps[i], offsets[i], round))
  return checksum
}

/** All cells of the table; the value is the one of 1000 mappers and the largest window. */
function wholeTable(context: Context, subject: Subject, verb: Verb): Side {
  const scenes: { mappers: number; windowBytes: number; scene: Scene }[] = []
  for (const mappers of MAPPERS) {
    for (const windowBytes of WINDOWS) {
      scenes.push({ mappers, windowBytes, scene: scene(subject, verb, mappers, windowBytes) })
    }
  }
  const run = (): Sample => {
    const phases: Record<string, number> = {}
    let last: Sample = { value: 0, checksum: 0 }
    for (const { mappers, windowBytes, scene } of scenes) {
      last = scene.play(rounds(context, mappers))
      phases[cell(mappersName(mappers), windowName(windowBytes))] = last.value
    }
    return { ...last, phases }
  }
  return {
    run,
    cleanup: () => {
      for (const { scene } of scenes) scene.close()
    }
  }
}

function smallWindows(context: Context, subject: Subject | undefined, verb: Verb): Side {
  if (subject === undefined) throw new Skip('it compares a build with itself, and none was given')
  const mappers = MAPPERS[MAPPERS.length - 1]
  const { play, close } = scene(subject, verb, mappers, WINDOWS[0])
  return { run: () => play(rounds(context, mappers)), cleanup: close }
}

function rounds(context: Context, mappers: number): number {
  return Math.min(200, Math.ceil(context.size(MAPPERS_TIMED * 4, MAPPERS_TIMED) / mappers))
}

function rmapRow(name: string, what: string, verb: Verb): BenchRow {
  return {
    name,
    what: `${what}, the windows of 64 GiB`,
    against: 'this build, the windows of 1 MiB',
    unit: 'ns/page',
    sense: 'cost',
    reach: undefined,
    ours: (context, subject) => wholeTable(context, subject, verb),
    theirs: (context, subject) => smallWindows(context, subject, verb)
  }
}

export const rmapRows: readonly BenchRow[] = [
  rmapRow('rmap/punch', 'take one page away from 1000 nonlinear windows that show it', PUNCH),
  rmapRow('rmap/clean', 'write back one page that 1000 nonlinear windows stored to', CLEAN)
]
