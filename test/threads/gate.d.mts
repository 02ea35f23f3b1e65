import type { Store, StoreOpener } from '../../src/store/store.ts'

export const CALLS: readonly string[]
export const G_CLOSED: number
export const G_HELD: number
export const G_CALLS: number
export const G_POSITION: number
export const G_ERRNO: number
export const G_TICKETS: number
export function newGates(): Int32Array
export function gateAt(call: string, word: number): number
export function gatedStore(inner: Store, gates: Int32Array): Store
export function gatedStores(inner: StoreOpener, gates: Int32Array): StoreOpener
