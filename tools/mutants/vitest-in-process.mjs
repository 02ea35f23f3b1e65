/**
 * What test files get when they import 'vitest' in a mutation run: the same describe, test and expect, without workers.
 */
import * as expectParts from '@vitest/expect'
import * as chai from 'chai'

export { afterAll, afterEach, beforeAll, beforeEach, describe, it, onTestFinished, test } from '@vitest/runner'

chai.use(expectParts.JestExtend)
chai.use(expectParts.JestChaiExpect)
chai.use(expectParts.JestAsymmetricMatchers)

export const expect = (value, message) => chai.expect(value, message)
Object.assign(expect, chai.expect, globalThis[expectParts.ASYMMETRIC_MATCHERS_OBJECT])
expectParts.setState({ assertionCalls: 0, isExpectingAssertions: false, expectedAssertionsNumber: null }, expect)
globalThis[expectParts.GLOBAL_EXPECT] = expect
