/**
 * Traces on disk: JSON lines, plain or gzipped; the first is the header, the others operations with what was observed.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'

export interface Header {
  readonly script: string
  readonly purpose: string
  readonly kernel: string
  readonly seed?: number
  readonly style?: string
  /** Fault-around window in pages; 1 when absent. */
  readonly fa?: number
  /** The script forces memory reclaim. */
  readonly reclaim?: boolean
  readonly guest_only?: boolean
  /** What the machine follows: Linux with its accidents when absent. */
  readonly policy?: 'nonlinear'
}

export type Result = Readonly<Record<string, unknown>>

export interface Op {
  /** Line in the file, from 1. */
  readonly line: number
  readonly op: string
  readonly args: Readonly<Record<string, unknown>>
  readonly expected: Result
}

export interface Trace {
  readonly path: string
  readonly header: Header
  readonly ops: readonly Op[]
}

/** Whether the kernel had nonlinear mappings, which 4.0 took out. */
export function isNonlinear(header: Header): boolean {
  return /^[23]\./.test(header.kernel)
}

/** All trace files at the given files and folders, sorted. Throws when a path does not exist. */
export function findTraces(paths: readonly string[]): string[] {
  const found = new Set<string>()
  for (const path of paths) {
    if (!statSync(path).isDirectory()) found.add(path)
    else for (const file of readdirSync(path, { recursive: true }) as string[]) addIfTrace(found, join(path, file))
  }
  return [...found].sort()
}

function addIfTrace(found: Set<string>, path: string): void {
  if (/\.jsonl(\.gz)?$/.test(path)) found.add(path)
}

/** Throws an error that names file and line when the file is not a trace. */
export function readTrace(path: string): Trace {
  const bytes = readFileSync(path)
  const text = (path.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('utf8')
  const lines = text.split('\n')
  let header: Header | undefined
  const ops: Op[] = []
  for (const [i, line] of lines.entries()) {
    if (line === '') continue
    const record = parse(path, i + 1, line)
    if (header === undefined) header = toHeader(path, record)
    else if (record.op !== 'end') ops.push(toOp(path, i + 1, record))
  }
  if (header === undefined) throw new Error(`${path}: no header line`)
  return { path, header, ops }
}

function parse(path: string, line: number, text: string): Record<string, unknown> {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new Error(`${path}:${line}: ${(error as Error).message}`)
  }
}

function toHeader(path: string, record: Record<string, unknown>): Header {
  if (typeof record.script !== 'string' || typeof record.kernel !== 'string') {
    throw new Error(`${path}:1: a header has a script and a kernel`)
  }
  return record as unknown as Header
}

function toOp(path: string, line: number, record: Record<string, unknown>): Op {
  const { op, r, ...args } = record
  if (typeof op !== 'string' || typeof r !== 'object' || r === null) {
    throw new Error(`${path}:${line}: an operation has an op and a result r`)
  }
  return { line, op, args, expected: r as Result }
}
