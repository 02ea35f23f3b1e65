/**
 * Mutation testing: `npm run mutants`, or a part of it with `npm run mutants -- --mutate 'src/rmap/**'`.
 *
 * @type {import('@stryker-mutator/api/core').PartialStrykerOptions}
 */
export default {
  mutate: ['pgtable', 'rmap', 'mm', 'reclaim', 'cache'].map(room => `src/${room}/**/*.ts`),
  // Strings in these rooms are names of arena parts.
  mutator: { excludedMutations: ['StringLiteral'] },
  ignorers: ['fremap'],
  // Evaluated once, when a module is loaded: constants.
  ignoreStatic: true,
  testRunner: 'in-process',
  plugins: ['./tools/mutants/runner.mjs', './tools/mutants/ignore.mjs'],
  coverageAnalysis: 'perTest',
  concurrency: 2,
  // The runner itself stops tests that do not end; this is for the case that it cannot.
  timeoutMS: 15_000,
  // The verdict is tools/mutants/score.mjs: what only a second thread reaches would count as missed here.
  thresholds: { high: 90, low: 85, break: null },
  reporters: ['json', 'progress-append-only'],
  jsonReporter: { fileName: process.env.MUTANTS_REPORT ?? 'build/mutants/report.json' },
  // Not guest/, whose decorators are AssemblyScript's.
  disableTypeChecks: 'src/**/*.ts',
  ignorePatterns: ['bench', 'docs', 'dist', 'build', 'coverage'],
  tempDirName: 'build/mutants/sandbox'
}
