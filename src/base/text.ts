/** Short texts in shared words: the length in UTF-16 units, then two units a word. */

/** Units that fit into so many words. */
export function textUnits(words: number): number {
  return (words - 1) * 2
}

/** Writes a text at word `at`; the caller has seen to it that it fits. */
export function writeText(words: Int32Array, at: number, text: string): void {
  words.fill(0, at, at + 1 + ((text.length + 1) >> 1))
  for (let i = 0; i < text.length; i++) words[at + 1 + (i >> 1)] |= text.charCodeAt(i) << ((i & 1) << 4)
  words[at] = text.length
}

export function readText(words: Int32Array, at: number): string {
  let text = ''
  for (let i = 0; i < words[at]; i++)
    text += String.fromCharCode((words[at + 1 + (i >> 1)] >>> ((i & 1) << 4)) & 0xffff)
  return text
}
