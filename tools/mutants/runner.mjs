/**
 * A test runner for Stryker that keeps everything in one process: modules are loaded once, and a mutant is tried by
 * setting its number and calling test functions until one fails. A mutant that is killed costs milliseconds that way,
 * where the runner of vitest starts a worker and loads all modules anew.
 *
 * Tests are collected by vitest's own `@vitest/runner` and run here in the simplest way: hooks of the suites around,
 * the test, hooks again. What that demands of the tests in `suite.mjs`: no mocks of modules, no state that a test which
 * failed leaves to the next one. After each kill the killer runs once more without the mutant; should it fail, modules
 * are loaded anew and the mutant is tried again, so that no mutant counts as killed by what an earlier one left behind.
 *
 * A test that does not end is stopped: a loop, and a thread that sleeps, by the time limit of `node:vm`; one that
 * awaits, by a timer (what it left under way gets no more turns, `patient.mjs`); a loop after an await, by Stryker's
 * own limits.
 */
import { fileURLToPath } from 'node:url'
import { declareClassPlugin, PluginKind } from '@stryker-mutator/api/plugin'
import { DryRunStatus, determineHitLimitReached, TestStatus, toMutantRunResult } from '@stryker-mutator/api/test-runner'
import { collectTests, getFn, getHooks } from '@vitest/runner'
import { createServer } from 'vite'
import { hasEnded, spent, timed, within } from './patient.mjs'
import { isSlow, testFiles, testsForTwoThreads } from './suite.mjs'

const SHIM = fileURLToPath(new URL('./vitest-in-process.mjs', import.meta.url))
/** A test that takes that many times as long as it does without a mutant, and some, does not end. */
const PATIENCE = 10
const PATIENCE_MS = 250
const MAX_TRIES = 5

// As many rounds as the long suite makes (test/support/suite.ts).
process.env.SUITE = 'long'

/** Stryker's global, which instrumented code reads. */
const stryker = (globalThis.__stryker__ ??= {})

class InProcessRunner {
  /** By name, in the order of the files. */
  #tests = new Map()
  #server

  capabilities() {
    return { reloadEnvironment: false }
  }

  async init() {
    await this.#load()
  }

  async dispose() {
    await this.#server?.close()
  }

  async dryRun() {
    const tests = []
    for (const test of this.#tests.values()) {
      stryker.currentTestId = test.id
      tests.push(await run(test, Number.POSITIVE_INFINITY))
      test.ms = tests.at(-1).timeSpentMs
      stryker.currentTestId = undefined
    }
    return { status: DryRunStatus.Complete, tests, mutantCoverage: stryker.mutantCoverage }
  }

  async mutantRun(options) {
    for (let tries = 1; tries <= MAX_TRIES; tries++) {
      const { result, last } = await this.#tryMutant(options, 2 ** (tries - 1))
      if (result.status === 'survived') return result
      const again = await run(last, Number.POSITIVE_INFINITY)
      if (again.status !== TestStatus.Success) {
        await this.dispose()
        await this.#load()
      } else if (!last.wasStarved || tries === MAX_TRIES) return result
    }
    return { status: 'error', errorMessage: 'a test that fails with the mutant fails without it as well' }
  }

  /** → what Stryker is to know, and the last test that ran. */
  async #tryMutant({ activeMutant, hitLimit, testFilter }, patience) {
    const chosen = testFilter?.map(id => this.#tests.get(id)) ?? [...this.#tests.values()]
    for (const test of chosen) test.ms ??= (await run(test, Number.POSITIVE_INFINITY)).timeSpentMs
    // What kills often and fast goes first.
    chosen.sort((a, b) => b.nrKills / b.ms - a.nrKills / a.ms || a.ms - b.ms)
    const tests = []
    let last
    stryker.hitCount = 0
    stryker.hitLimit = hitLimit
    stryker.activeMutant = activeMutant.id
    try {
      for (last of chosen) {
        const limitMs = patience * (PATIENCE * last.ms + PATIENCE_MS)
        const before = spent()
        const result = await run(last, limitMs)
        // Other programs had the processor: that it did not end in time says nothing.
        last.wasStarved = result.isTimeout === true && spent() - before < limitMs / 8
        tests.push(result)
        if (result.status !== TestStatus.Failed) continue
        last.nrKills++
        if (result.isTimeout) return { result: toMutantRunResult({ status: DryRunStatus.Timeout }), last }
        break
      }
    } finally {
      stryker.activeMutant = undefined
    }
    const tooOften = determineHitLimitReached(stryker.hitCount, hitLimit)
    return { result: toMutantRunResult(tooOften ?? { status: DryRunStatus.Complete, tests }), last }
  }

  async #load() {
    this.#server = await createServer({
      configFile: false,
      root: process.cwd(),
      appType: 'custom',
      logLevel: 'error',
      server: { middlewareMode: true, watch: null, ws: false, hmr: false },
      optimizeDeps: { noDiscovery: true },
      // As vitest: what this Node does not know yet is compiled.
      esbuild: { target: 'node20' },
      resolve: { alias: { vitest: SHIM } }
    })
    const files = await collectTests(testFiles(process.cwd()), collector(this.#server))
    const before = this.#tests
    this.#tests = new Map()
    const add = (test, nrThreads) => {
      const known = before.get(test.id)
      this.#tests.set(test.id, { ...test, nrThreads, ms: known?.ms, nrKills: known?.nrKills ?? 0 })
    }
    for (const file of files) {
      if (file.result?.errors) throw new Error(`${file.name}: ${file.result.errors.map(e => e.message)}`)
      for (const test of testsIn(file, file.name)) add(test, 1)
    }
    const twice = new Set(testsForTwoThreads(process.cwd()))
    for (const file of files.filter(({ filepath }) => twice.has(filepath))) {
      for (const test of testsIn(file, `two threads: ${file.name}`)) add(test, 2)
    }
  }
}

function* testsIn(suite, name) {
  for (const task of suite.tasks) {
    const id = `${name} > ${task.name}`
    if (task.type === 'suite') yield* testsIn(task, id)
    else if ((task.mode === 'run' || task.mode === 'queued') && !isSlow(id)) yield { id, task }
  }
}

/** The least that `collectTests` wants to know. */
function collector(server) {
  return {
    config: {
      root: process.cwd(),
      setupFiles: [],
      sequence: { shuffle: false, hooks: 'stack', setupFiles: 'list' },
      testTimeout: 0,
      hookTimeout: 0,
      retry: 0,
      allowOnly: false,
      tags: [],
      includeTaskLocation: false
    },
    pool: 'in-process',
    trace: (_name, attributes, fn) => (fn ?? attributes)(),
    importFile: path => server.ssrLoadModule(path)
  }
}

async function run(test, limitMs) {
  const { task } = test
  const start = performance.now()
  process.env.RIG_THREADS = String(test.nrThreads)
  const error = await timed(limitMs, async () => {
    const suites = []
    for (let suite = task.suite ?? task.file; suite !== undefined; suite = suite.suite ?? fileOf(suite)) {
      suites.unshift(suite)
    }
    for (const suite of suites) {
      for (const hook of getHooks(suite).beforeEach) await within(limitMs, () => hook(task.context, suite))
    }
    await within(limitMs, getFn(task))
    for (const suite of suites.reverse()) {
      for (const hook of [...getHooks(suite).afterEach].reverse()) {
        await within(limitMs, () => hook(task.context, suite))
      }
    }
  })
  const timeSpentMs = Math.max(0.01, performance.now() - start)
  const result = { id: test.id, name: test.id, timeSpentMs, fileName: task.file.filepath }
  if (error === undefined) return { ...result, status: TestStatus.Success }
  return {
    ...result,
    status: TestStatus.Failed,
    failureMessage: String(error?.stack ?? error),
    isTimeout: hasEnded(error)
  }
}

function fileOf(suite) {
  return suite === suite.file ? undefined : suite.file
}

export const strykerPlugins = [declareClassPlugin(PluginKind.TestRunner, 'in-process', InProcessRunner)]
