export const STOP: number
export const SEQ: number
export const SHOWN: number
export const ASKED: number
export const ROUNDS: number
export function random(seed: number): (below: number) => number
export const loops: Readonly<Record<string, unknown>>
