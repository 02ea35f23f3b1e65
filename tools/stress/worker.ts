/**
 * A thread of the stress: attaches for each round that it is sent, does the round's scenario until told to stop, and
 * reports.
 */
import { parentPort, threadId } from 'node:worker_threads'
import { Memory, sharedStores } from '../../src/index.ts'
import { nodeFiles } from '../../src/stores/node-file.ts'
import { codeOf, Env, READY, type Report, type RoundTask } from './env.ts'
import { guests } from './guests.ts'
import { holes } from './holes.ts'
import { lanes } from './lanes.ts'
import { slowStores } from './slow-store.ts'
import { storm } from './storm.ts'

const SCENARIOS = { lanes, holes, storm, guests, deaths: lanes }

function run(task: RoundTask): Report {
  const stores = [nodeFiles, sharedStores(task.buffers)]
  const memory = Memory.attach(task.memory, { stores: [...stores, slowStores(stores)], thread: threadId })
  const env = new Env(task, memory)
  Atomics.add(env.words, READY, 1)
  try {
    env.report.model = SCENARIOS[task.config.scenario](env)
  } catch (error) {
    if (!(env.isBroken && codeOf(error) === 'EOWNERDEAD')) env.wrong((error as Error).stack ?? String(error))
  }
  memory.detach()
  return env.report
}

parentPort?.on('message', (task: RoundTask) => {
  parentPort?.postMessage(run(task))
})
