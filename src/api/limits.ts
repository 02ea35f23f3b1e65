/** Which limit of a memory an error is about, and the option that raises it. */
import { EBUSY, EMFILE, ENFILE, ENOMEM } from '../abi/errno.ts'
import type { Machine } from '../mm/machine.ts'

/** Of an open that gave `result`. */
export function openHint({ inodes, files }: Machine, result: number, name: string): string {
  const what = `opening ${name}`
  if (result === -EBUSY) {
    return `${what}, which another memory of this thread has open for writing; close it there, or say { coordinated: true } at both opens`
  }
  if (result !== -ENFILE && result !== -EMFILE) return what
  const isFull = files.refs.every((refs, file) => file === 0 || refs !== 0)
  if (result === -EMFILE || isFull) return `${what}: maxFiles is ${files.capacity}, and as many opens are there`
  return `${what}: maxInodes is ${inodes.capacity}, and as many files are open or mapped`
}

/** Of an address space that could not be made. */
export function spacesHint({ mms }: Machine, result: number): string | undefined {
  if (result !== -ENOMEM) return undefined
  for (let mm = 1; mm <= mms.maxMms; mm++) if (!mms.isAlive(mm)) return undefined
  return `maxSpaces is ${mms.maxMms}, and as many address spaces are there`
}
