/** Sizes as people write them: 64MiB, 1.5GiB, 4096, 64k. */
const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 2 ** 10,
  kib: 2 ** 10,
  kb: 1e3,
  m: 2 ** 20,
  mib: 2 ** 20,
  mb: 1e6,
  g: 2 ** 30,
  gib: 2 ** 30,
  gb: 1e9,
  t: 2 ** 40,
  tib: 2 ** 40,
  tb: 1e12
}

/** Bytes of a size: a non-negative number, or a string with an optional unit. Throws RangeError for anything else. */
export function parseSize(size: number | string): number {
  let bytes = Number.NaN
  if (typeof size === 'number') bytes = size
  else if (typeof size === 'string') {
    const match = /^\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*$/i.exec(size)
    const unit = match === null ? undefined : UNITS[match[2].toLowerCase()]
    if (match !== null && unit !== undefined) bytes = Math.floor(Number(match[1]) * unit)
  }
  if (!Number.isSafeInteger(bytes) || bytes < 0) {
    const given = typeof size === 'string' ? JSON.stringify(size) : typeof size === 'number' ? size : `a ${typeof size}`
    throw new RangeError(`${given} is not a size; write bytes or a unit, like 65536, 64KiB, 1.5GiB`)
  }
  return bytes
}

/** The same where a number is checked later on, together with other things. */
export function bytesIn(size: number | string): number {
  return typeof size === 'string' ? parseSize(size) : size
}

/** A size for people: the largest binary unit that leaves at least 1, three digits. */
export function formatSize(bytes: number): string {
  let value = bytes
  let unit = 'B'
  for (const next of ['KiB', 'MiB', 'GiB', 'TiB']) {
    if (value < 1024) break
    value /= 1024
    unit = next
  }
  const text = unit === 'B' || value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)
  return `${text} ${unit}`
}
