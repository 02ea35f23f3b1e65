/** The process that programs run in: says Hello, then answers each program with its results or with what was wrong. */
import type { Hello } from './executor.ts'
import { openKernel } from './kernel.ts'
import { runProgram, type Step } from './kernel-ops.ts'

const send = (message: unknown): void => {
  process.send?.(message)
}

const kernel = await openKernel(process.argv[2])
if ('reason' in kernel) {
  send({ unavailable: kernel.reason } satisfies Hello)
  process.disconnect()
} else {
  process.on('message', program => {
    try {
      send(runProgram(kernel, program as readonly Step[]))
    } catch (error) {
      send(String((error as Error).stack))
    }
  })
  process.on('disconnect', () => process.exit())
  send({} satisfies Hello)
}
