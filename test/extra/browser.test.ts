/**
 * The bundles in a real browser: Chromium, headless, on a page that is isolated (COOP and COEP), so that it has shared
 * memory. Skipped where Chromium is not installed.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type BrowserContext, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { useBuiltCli } from '../cli/support.ts'
import { fileOf, type RangeServer, startRangeServer } from '../support/range-server.ts'

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync)
const INSTALL = 'Chromium is not installed: apt-get install chromium'
if (CHROMIUM === undefined) console.warn(`test/extra/browser.test.ts skipped: ${INSTALL}`)

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const PAGE = 4096
const PAGES = 500
const SIZE = PAGES * PAGE + 10

describe.skipIf(CHROMIUM === undefined)(CHROMIUM === undefined ? `browser (${INSTALL})` : 'browser', () => {
  useBuiltCli()
  let server: RangeServer
  let profile: string
  let context: BrowserContext
  let page: Page
  const complaints: string[] = []

  beforeAll(async () => {
    server = await startRangeServer(fileOf(marked()))
    server.before = async ({ path, range }, response) => {
      if (path !== '/plain') {
        response.setHeader('cross-origin-opener-policy', 'same-origin')
        response.setHeader('cross-origin-embedder-policy', 'require-corp')
      }
      const found = sourceOf(path)
      if (found === undefined) {
        // Opening it works; nothing else ever comes.
        return path === '/slow' && range?.[1] !== 0
      }
      response.setHeader(
        'content-type',
        path.endsWith('.mjs') || path.endsWith('.js') ? 'text/javascript' : 'text/html'
      )
      response.end(found)
      return true
    }
    profile = mkdtempSync(join(tmpdir(), 'fremap-browser-'))
    context = await chromium.launchPersistentContext(profile, {
      executablePath: CHROMIUM as string,
      headless: true,
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync'
      ]
    })
    page = await context.newPage()
    page.on('pageerror', error => complaints.push(String(error)))
    page.on('console', message => message.type() === 'error' && complaints.push(message.text()))
    await page.goto(`${server.origin}/`)
  })

  afterAll(async () => {
    await context?.close()
    await server?.close()
    if (profile !== undefined) rmSync(profile, { recursive: true, force: true })
  })

  /** Runs a function of browser/page.mjs in the page. */
  const run = async <T>(name: string): Promise<T> => {
    const result = await page.evaluate<T>(`import('/page/page.mjs').then(page => page.${name}())`)
    expect(complaints.splice(0)).toEqual([])
    return result
  }

  test('the page has shared memory, and its main thread may not wait', async () => {
    expect(await run('isolated')).toEqual({ isolated: true, mayWait: false })
  })

  test('one thread over a store in memory', async () => {
    const { seen, evicted, wrong } = await run<{ seen: number[]; evicted: number; wrong: string[] }>('singleThread')
    expect(seen).toEqual([991, 1000, 501])
    expect(evicted).toBeGreaterThan(500)
    expect(wrong).toEqual([])
  })

  test('one thread over a server', async () => {
    expect(await run('overHttp')).toMatchObject({
      before: { code: 'EAGAIN', fault: 1 },
      after: 78,
      inOrder: true,
      size: SIZE,
      aborted: 'AbortError',
      wrong: []
    })
  })

  test('a worker reads synchronously what the page fetches; both see what the other one stores', async () => {
    const result = await run<{ longest: number }>('withWorker')
    expect(result).toMatchObject({
      sum: ((PAGES + 1) * (PAGES + 2)) / 2,
      theySee: 4711,
      weSee: 42,
      wrong: [],
      threads: 1
    })
    expect(result.longest).toBeLessThan(1000)
  })

  test('where the page would have to wait for a worker it gets EAGAIN, and ready works', async () => {
    expect(await run('pagerInWorker')).toMatchObject({
      before: { code: 'EAGAIN', fault: 1 },
      ready: 1,
      after: 10,
      gone: { code: 'SIGBUS' },
      rejected: 'SIGBUS',
      wrong: []
    })
  })

  test('a lock that a worker holds does not hang the page', async () => {
    const result = await run<{ longest: number; busy: { message: string } }>('lockedByWorker')
    expect(result).toMatchObject({ busy: { code: 'EAGAIN', fault: 0 }, readyTooEarly: false, after: 1 })
    expect(result.busy.message).toMatch(/^EAGAIN: another thread has it locked/)
    expect(result.longest).toBeLessThan(250)
  })

  test('a file that a user chose, by its blob and by its URL, later and at once', async () => {
    expect(await run('blobs')).toMatchObject({
      name: 'chosen.bin',
      sums: [true, true],
      refused: expect.stringContaining('use blobStore with memory.openAsync'),
      wrong: 0
    })
  })

  test('a relative URL is relative to the document', async () => {
    const [name, path] = await run<[string, string]>('relative')
    expect([new URL(name).pathname, path]).toEqual(['/below/file', '/file'])
  })

  describe('a server of another origin', () => {
    let other: RangeServer
    let allowed: Record<string, string> = {}

    beforeAll(async () => {
      other = await startRangeServer(fileOf(marked()))
      other.before = ({ method }, response) => {
        response.setHeader('cross-origin-resource-policy', 'cross-origin')
        for (const [name, value] of Object.entries(allowed)) response.setHeader(`access-control-${name}`, value)
        if (method !== 'OPTIONS') return false
        response.writeHead(204).end()
        return true
      }
    })

    afterAll(() => other?.close())

    test.each([
      [{}, /^EIO EIO: Failed to fetch \(.*'Access-Control-Allow-Origin'.*Allow-Headers: Range, If-Match, If-Range/],
      [{ 'allow-origin': '*' }, /Access-Control-Expose-Headers: Content-Range, ETag/],
      [
        { 'allow-origin': '*', 'expose-headers': 'Content-Range' },
        /EOPNOTSUPP.*Access-Control-Expose-Headers: Content-Range, ETag, Date/
      ],
      [{ 'allow-origin': '*', 'expose-headers': 'Content-Range, ETag' }, /Allow-Headers: Range, If-Match, If-Range/],
      [
        { 'allow-origin': '*', 'allow-headers': 'Range, If-Match, If-Range', 'expose-headers': 'Content-Range, ETag' },
        /^8$/
      ]
    ])('errors say what it must allow: %o', async (headers, outcome) => {
      allowed = headers
      const script = `import('/page/page.mjs').then(page => page.otherOrigin('${other.origin}/file'))`
      expect(String(await page.evaluate(script))).toMatch(outcome)
      // The browser itself complains of what it does not let through.
      complaints.splice(0)
    })
  })

  test('a page that is not isolated is told so', async () => {
    const plain = await context.newPage()
    await plain.goto(`${server.origin}/plain`)
    const result = await plain.evaluate<{ memory: string }>(`import('/page/page.mjs').then(page => page.notIsolated())`)
    expect(result).toMatchObject({ isolated: false })
    expect(result.memory).toMatch(/no SharedArrayBuffer.*'Cross-Origin-Opener-Policy: same-origin'/)
    await plain.close()
  })

  test('workers that are ended: what they held is given back, or the memory is broken', async () => {
    expect(await run('endedWorkers')).toMatchObject({
      wrong: [],
      threads: 1,
      broken: { code: 'EOWNERDEAD' },
      rejected: 'EOWNERDEAD'
    })
  })
})

/** Page i begins with the 32-bit word i + 1. */
function marked(): Uint8Array {
  const contents = new Uint8Array(SIZE)
  const view = new DataView(contents.buffer)
  for (let page = 0; page * PAGE + 4 <= SIZE; page++) view.setUint32(page * PAGE, page + 1, true)
  return contents
}

/** What is served beside the file. */
function sourceOf(path: string): string | undefined {
  if (path === '/' || path === '/plain') return '<!doctype html><title>fremap</title><link rel="icon" href="data:,">'
  const [, folder, name] = /^\/(dist|page)\/([\w-]+\.m?js)$/.exec(path) ?? []
  if (folder === undefined) return undefined
  return readFileSync(join(ROOT, folder === 'dist' ? 'dist' : 'test/extra/browser', name), 'utf8')
}
