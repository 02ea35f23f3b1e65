/** Sizes and limits, in the units that their names say. */

export const MIN_PAGE_SHIFT = 9 as const
export const MAX_PAGE_SHIFT = 16 as const
export const DEFAULT_PAGE_SHIFT = 12 as const

/**
 * Bits of file page that a file pte can hold (Linux: PTE_FILE_MAX_BITS, one per architecture; 46 on x86-64).
 * remap_file_pages refuses `pgoff + pages >= 2^28`, so 2^28 - 2 is the last page that can be remembered:
 * 1 TiB with 4 KiB pages.
 */
export const PTE_FILE_MAX_BITS = 28 as const
export const PTE_FILE_MAX_PAGES: number = 2 ** PTE_FILE_MAX_BITS

/** Bits of frame number in a present pte, hence the largest RAM: 4,194,303 frames. */
export const MAX_FRAME_BITS = 22 as const
export const MAX_FRAMES: number = 2 ** MAX_FRAME_BITS - 1

/**
 * Pages of address space: virtual page numbers are int32, so 2^31 - 1 (8 TiB with 4 KiB pages).
 * Linux on x86-64 has 2^35 - 1.
 */
export const TASK_PAGES = 0x7fffffff as const

/** Pages that the cache can index in one file (8 TiB with 4 KiB pages). */
export const MAX_FILE_PAGES = 0x7fffffff as const

/** Linux's default for vm.max_map_count. */
export const DEFAULT_MAX_MAP_COUNT = 65530 as const
