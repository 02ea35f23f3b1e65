/** Which fremap this is. Threads that share a memory must run the same one: they find its columns by the same code. */
export const VERSION = '0.1.0' as const
