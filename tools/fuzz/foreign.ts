/** Arrays as other code makes them: of another realm, or with methods of its own. */
import vm from 'node:vm'

const OtherRealms = vm.runInNewContext('Uint8Array') as typeof Uint8Array

function refuse(): never {
  throw new Error('foreign code ran in the middle of a call')
}

class WithOwnCode extends Uint8Array {
  override get length(): number {
    return refuse()
  }
  override set(): void {
    refuse()
  }
  override subarray(): never {
    return refuse()
  }
  override slice(): never {
    return refuse()
  }
  override fill(): never {
    return refuse()
  }
}

/** The same bytes, as an array of kind `n % 3`. */
export function foreign(bytes: Uint8Array<ArrayBuffer>, n: number): Uint8Array {
  const { buffer, byteOffset, length } = bytes
  if (n % 3 === 0) return bytes
  return new (n % 3 === 1 ? OtherRealms : WithOwnCode)(buffer, byteOffset, length)
}
