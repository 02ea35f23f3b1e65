/**
 * What a mutation run leaves alone, because the mutants would be equivalent by construction:
 *
 *   assert(...), if (...) broken(...)   guards against our own bugs: in correct code they never act
 *   trace.add(...)                      events for people to read; nothing reads them back
 *   row + F_FLAGS                       the first word of a row: its constant is 0, and row - 0 is row + 0
 */
import { declareValuePlugin, PluginKind } from '@stryker-mutator/api/plugin'

const FIRST_WORDS = new Set(['F_FLAGS', 'MM_ALIVE', 'N_VPN', 'OWN_NEXT', 'T_STATE'])

function calls(node, name) {
  return node?.type === 'CallExpression' && node.callee.type === 'Identifier' && node.callee.name === name
}

function isTrace(node) {
  if (node.type !== 'CallExpression' || node.callee.type !== 'MemberExpression') return false
  const { object, property } = node.callee
  if (property.name !== 'add' || object.type !== 'MemberExpression') return false
  const name = object.property.type === 'PrivateName' ? object.property.id.name : object.property.name
  return name === 'trace'
}

/** Only where nothing else that is mutated stands beside it. */
function addsZero({ type, operator, left, right }) {
  if (type !== 'BinaryExpression' || operator !== '+' || !FIRST_WORDS.has(right.name)) return false
  return isPlain(left) || (left.type === 'BinaryExpression' && left.operator === '<<' && isPlain(left.left))
}

/** A name, or what an array has at a place that is not computed. */
function isPlain({ type, property }) {
  return type === 'Identifier' || (type === 'MemberExpression' && /^(Identifier|NumericLiteral)$/.test(property.type))
}

function isBroken(node) {
  if (node.type !== 'IfStatement' || node.alternate) return false
  const only = node.consequent.type === 'BlockStatement' ? node.consequent.body[0] : node.consequent
  return only?.type === 'ExpressionStatement' && calls(only.expression, 'broken')
}

const ignorer = {
  shouldIgnore({ node }) {
    if (calls(node, 'assert') || calls(node, 'broken') || isBroken(node)) return 'a guard against our own bugs'
    if (addsZero(node)) return 'adds 0'
    return isTrace(node) ? 'an event of the trace ring' : undefined
  }
}

export const strykerPlugins = [declareValuePlugin(PluginKind.Ignore, 'fremap', ignorer)]
