import type { ViteUserConfig } from 'vitest/config'

const config: ViteUserConfig = {
  test: {
    include: ['test/**/*.test.ts'],
    environment: 'node',
    // A process per test file: a machine's shared memory goes back to the system when its file is done.
    pool: 'forks',
    testTimeout: 30_000,
    hookTimeout: 30_000,
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

export default config
