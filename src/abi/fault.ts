/**
 * What a memory access can come to. Faults are return codes inside the machine; an exception costs a thousand
 * times more, so only `api/` throws.
 */
export const FAULT_OK = 0 as const
/** Nothing is mapped at the address (SIGSEGV, SEGV_MAPERR). */
export const FAULT_MAPERR = 1 as const
/** The mapping, or the page's own protection, does not allow the access (SIGSEGV, SEGV_ACCERR). */
export const FAULT_ACCERR = 2 as const
/** Beyond the end of the file, or the store failed (SIGBUS). `Machine.lastError` holds the store's errno, or 0. */
export const FAULT_BUS = 3 as const
/** No frame can be freed for the page: everything is locked, pinned or cannot be written back. */
export const FAULT_OOM = 4 as const
/** The entry changed meanwhile; the access is to be tried again. Never leaves the fault path. */
export const FAULT_RETRY = 5 as const
/** The page is on its way to memory: `Machine.waitFrame` is to be waited for. Never leaves the fault path. */
export const FAULT_WAIT = 6 as const

export const ACCESS_READ = 0 as const
export const ACCESS_WRITE = 1 as const
/**
 * A load by somebody who keeps the page afterwards: a private page becomes the address space's own first, so that its
 * next store does not go elsewhere and nobody else's comes here (Linux 5.19: FAULT_FLAG_UNSHARE).
 */
export const ACCESS_UNSHARE = 2 as const
