/**
 * Modules of src/ for a thread that a test starts: the oldest Node we support does not run TypeScript.
 *
 * Offers `compileInto(directory, entry)`: `entry` (such as `stores/http-range`) and all that it imports, as JavaScript.
 */
import fs from 'node:fs'
import path from 'node:path'
import ts from 'typescript'

/** → the path of the compiled entry. */
export function compileInto(directory: string, entry: string): string {
  fs.writeFileSync(path.join(directory, 'package.json'), '{ "type": "module" }')
  const todo = [entry]
  const seen = new Set(todo)
  for (const file of todo) {
    const source = fs.readFileSync(new URL(`../../src/${file}.ts`, import.meta.url), 'utf8')
    const compilerOptions = {
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.ESNext,
      verbatimModuleSyntax: true,
      rewriteRelativeImportExtensions: true
    }
    const out = path.join(directory, `${file}.js`)
    const compiled = ts.transpileModule(source, { compilerOptions }).outputText
    fs.mkdirSync(path.dirname(out), { recursive: true })
    fs.writeFileSync(out, compiled)
    for (const { fileName } of ts.preProcessFile(compiled).importedFiles) {
      const imported = path.posix.join(path.posix.dirname(file), fileName).replace(/\.js$/, '')
      if (!fileName.startsWith('.') || seen.has(imported)) continue
      seen.add(imported)
      todo.push(imported)
    }
  }
  return path.join(directory, `${entry}.js`)
}
