/** What the guest imports from its host, as module `host` (src/mmu/shadow-table.ts answers it). */

/** Fills the shadow entry of a page for an access, or throws: then nothing of the guest runs on. */
export declare function fault(page: u32, access: u32): void
/** Tells the host that no translation from before this call is in use any more. */
export declare function passed(): void
