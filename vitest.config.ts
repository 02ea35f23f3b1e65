import type { ViteUserConfig } from 'vitest/config'

/** Files that need a process of their own: they change what all tests of a process share, or hold descriptors. */
const ALONE = ['test/threads/same.long.test.ts', 'test/oracle-live/*.test.ts']

/**
 * `npm test` is the short suite; `npm run test:long` (vitest.long.config.ts) is everything: `*.long.test.ts` too, and as many rounds as
 * `rounds` (test/support/suite.ts) is told for it.
 */
export function suite(isLong: boolean): ViteUserConfig {
  const exclude = isLong ? [] : ['test/**/*.long.test.ts']
  return {
    test: {
      environment: 'node',
      pool: 'forks',
      // Both of two processors: the default leaves one idle.
      maxWorkers: '100%',
      env: { SUITE: isLong ? 'long' : 'short' },
      // What hangs ends some time. No test is meant to come near it, on however slow a machine.
      testTimeout: 300_000,
      hookTimeout: 300_000,
      teardownTimeout: 60_000,
      unstubGlobals: true,
      projects: [
        // One process runs file after file: it loads the sources once.
        {
          extends: true,
          test: {
            name: 'tests',
            isolate: false,
            include: ['test/**/*.test.ts'],
            exclude: [...exclude, ...ALONE, 'test/extra/**']
          }
        },
        { extends: true, test: { name: 'alone', include: ALONE, exclude } },
        { extends: true, test: { name: 'extra', include: ['test/extra/**/*.test.ts'] } }
      ],
      coverage: {
        provider: 'v8',
        include: ['src/**/*.ts'],
        reporter: ['text-summary', 'html'],
        thresholds: {
          // Floors 0 to 10, all their files together.
          'src/{kernel.ts,{abi,base,sync,frame,store,pgtable,notify,vma,cache,swap,rmap,reclaim,mm,syscall}/**}': {
            lines: 95,
            branches: 90
          }
        }
      }
    }
  }
}

const config: ViteUserConfig = suite(false)
export default config
