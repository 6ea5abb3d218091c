/**
 * Python's bytecode files (PEP 552):
 *
 *     4 bytes  magic number of the Python version
 *     u32 le   1: named for its source's hash, and believed without reading the source
 *     8 bytes  SipHash-1-3 of the source, with the magic number as the key
 *     code     as `marshal` writes it
 */

const HEADER_BYTES = 16;
const HASH_OFFSET = 8;
const HASH_BASED_UNCHECKED = 1;
/** `TYPE_CODE`, with the flag that says that it may be referred to. */
const MARSHALLED_CODE = 0x63 | 0x80;

/** A source's place in an archive → that of its bytecode. @param tag `cpython-314`. */
export function bytecodePath(sourcePath: string, tag: string): string {
  const slash = sourcePath.lastIndexOf("/") + 1;
  return `${sourcePath.slice(0, slash)}__pycache__/${sourcePath.slice(slash, -".py".length)}.${tag}.pyc`;
}

/** The place of bytecode → that of its source. */
export function sourcePath(bytecode: string): string {
  return bytecode.replace(/__pycache__\/([^/]+)\.[^./]+\.pyc$/, "$1.py");
}

/** @returns what is wrong with the form of bytecode that is said to be made of `source`; null: nothing. */
export function bytecodeProblem(bytecode: Uint8Array, source: Uint8Array): string | null {
  if (bytecode.length <= HEADER_BYTES) return "it is too short";
  const view = new DataView(bytecode.buffer, bytecode.byteOffset, bytecode.length);
  const magic = view.getUint32(0, true);
  // The last two bytes are "\r\n", so that a transfer as text damages it.
  if (magic >>> 16 !== 0x0a0d) return "it has no magic number";
  if (view.getUint32(4, true) !== HASH_BASED_UNCHECKED) return "it has other flags";
  if (view.getBigUint64(HASH_OFFSET, true) !== sourceHash(magic, source)) return "it is another source's";
  return bytecode[HEADER_BYTES] === MARSHALLED_CODE ? null : "it holds no code";
}

/** SipHash-1-3, as `importlib.util.source_hash`. @param key lower half of the key; the other is 0. */
export function sourceHash(key: number, source: Uint8Array): bigint {
  const state = new SipState(key);
  const view = new DataView(source.buffer, source.byteOffset, source.length);
  const wholeBytes = source.length & ~7;
  for (let offset = 0; offset < wholeBytes; offset += 8) {
    state.add(view.getInt32(offset, true), view.getInt32(offset + 4, true));
  }
  const last = new DataView(new ArrayBuffer(8));
  for (let offset = wholeBytes; offset < source.length; offset++) {
    last.setUint8(offset - wholeBytes, source[offset] as number);
  }
  last.setUint8(7, source.length & 0xff);
  state.add(last.getInt32(0, true), last.getInt32(4, true));
  return state.finish();
}

/** Four words of 64 bits, each as two of 32: JavaScript has no faster ones. */
class SipState {
  #low: Int32Array;
  #high: Int32Array;

  constructor(key: number) {
    this.#low = Int32Array.of(0x70736575 ^ key, 0x6e646f6d, 0x6e657261 ^ key, 0x79746573);
    this.#high = Int32Array.of(0x736f6d65, 0x646f7261, 0x6c796765, 0x74656462);
  }

  add(low: number, high: number): void {
    this.#mix(3, low, high);
    this.#round();
    this.#mix(0, low, high);
  }

  finish(): bigint {
    this.#mix(2, 0xff, 0);
    for (let round = 0; round < 3; round++) this.#round();
    const combined = (words: Int32Array) => BigInt(words.reduce((all, word) => all ^ word, 0) >>> 0);
    return (combined(this.#high) << 32n) | combined(this.#low);
  }

  #mix(word: number, low: number, high: number): void {
    this.#low[word] = (this.#low[word] as number) ^ low;
    this.#high[word] = (this.#high[word] as number) ^ high;
  }

  #round(): void {
    this.#halfRound(0, 1, 2, 3, 13, 16);
    this.#halfRound(2, 1, 0, 3, 17, 21);
  }

  #halfRound(a: number, b: number, c: number, d: number, s: number, t: number): void {
    this.#addTo(a, b);
    this.#addTo(c, d);
    this.#rotateAndMix(b, s, a);
    this.#rotateAndMix(d, t, c);
    const low = this.#low[a] as number;
    this.#low[a] = this.#high[a] as number;
    this.#high[a] = low;
  }

  #addTo(a: number, b: number): void {
    const sum = ((this.#low[a] as number) >>> 0) + ((this.#low[b] as number) >>> 0);
    this.#low[a] = sum;
    this.#high[a] = (this.#high[a] as number) + (this.#high[b] as number) + (sum > 0xffffffff ? 1 : 0);
  }

  #rotateAndMix(word: number, bits: number, other: number): void {
    const low = this.#low[word] as number;
    const high = this.#high[word] as number;
    this.#low[word] = ((low << bits) | (high >>> (32 - bits))) ^ (this.#low[other] as number);
    this.#high[word] = ((high << bits) | (low >>> (32 - bits))) ^ (this.#high[other] as number);
  }
}
