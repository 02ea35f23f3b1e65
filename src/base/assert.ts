/** Assertions are for our own bugs. A caller's mistake is -EINVAL, a failed disk is -EIO; neither comes here. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`fremap: internal invariant broken: ${message}`)
}

/** What an assertion in hot code calls: a template in an argument of `assert` is built at every call. */
export function broken(message: string): never {
  throw new Error(`fremap: internal invariant broken: ${message}`)
}
