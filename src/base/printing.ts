/**
 * What people see of an object: loggers inspect whatever they are handed, or make JSON of it.
 *
 *  defineHidden   gives an object what it works with as properties that nobody sees: printing, copying and comparing
 *                 pass over them
 *  inspectedAs    has the objects of a class inspected as one line, a `summary` for example
 *  quoted         a name within a message, on one line of its own whatever it has in it
 */

/** In a constructor, and always the same ones in the same order: then all objects of a class have one shape. */
export function defineHidden(target: object, properties: object): void {
  for (const [key, value] of Object.entries(properties)) {
    Object.defineProperty(target, key, { value, writable: true, enumerable: false, configurable: true })
  }
}

/** Node asks an object by this symbol, instead of looking into it. */
export function inspectedAs<T>(kind: { readonly prototype: T }, line: (object: T) => string): void {
  Object.defineProperty(kind.prototype, Symbol.for('nodejs.util.inspect.custom'), {
    value(this: T) {
      return line(this)
    },
    writable: true,
    configurable: true
  })
}

/**
 * `Mapping { file: 'a', length: 4096, unmapped }`: facts that are undefined are left out, and so is an empty `state`.
 */
export function summary(kind: string, facts: object, state = ''): string {
  const told = Object.entries(facts)
    .filter(([, fact]) => fact !== undefined)
    .map(([key, fact]) => `${key}: ${typeof fact === 'string' ? quoted(fact) : fact}`)
  if (state !== '') told.push(state)
  return `${kind} { ${told.join(', ')} }`
}

export function quoted(name: string): string {
  return `'${escaped(name)}'`
}

/**
 * A text, such as the name of a file, with escapes in place of control characters and of such as change the direction
 * of a line.
 */
export function escaped(text: string): string {
  return text.replace(
    /[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu,
    one => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`
  )
}
