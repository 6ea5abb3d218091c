import { REWIND_MODULE } from "./rewind-module.ts";

const BLOCK_BYTES = 4096;
const WASM_PAGE_BYTES = 65_536;

interface Run {
  readonly start: number;
  readonly end: number;
  /** Where the run's bytes lie in the image; null: the run is zero. */
  readonly source: number | null;
}

interface RewindExports {
  restore(from: number, to: number, source: number): number;
  clear(from: number, to: number): number;
}

/**
 * The interpreter's linear memory at one moment, and the way back to it.
 *
 * Only what is not zero is kept: about half of a heap is untouched stack and room to grow. A rewind nevertheless looks at
 * every byte, because a tenant's data may lie anywhere: in dead stack, in freed heap, above the break.
 */
export class Checkpoint {
  readonly heapBytes: number;
  readonly #heap: WebAssembly.Memory;
  readonly #runs: readonly Run[];
  readonly #rewind: RewindExports;

  private constructor(heap: WebAssembly.Memory, runs: readonly Run[], rewind: RewindExports) {
    this.#heap = heap;
    this.heapBytes = heap.buffer.byteLength;
    this.#runs = runs;
    this.#rewind = rewind;
  }

  static async take(heap: WebAssembly.Memory): Promise<Checkpoint> {
    const bytes = new Uint8Array(heap.buffer);
    const runs = findRuns(bytes);
    const imageBytes = runs.reduce((sum, run) => sum + (run.source === null ? 0 : run.end - run.start), 0);
    const image = new WebAssembly.Memory({ initial: Math.ceil(imageBytes / WASM_PAGE_BYTES) });
    const copy = new Uint8Array(image.buffer);
    for (const run of runs) if (run.source !== null) copy.set(bytes.subarray(run.start, run.end), run.source);
    const code = Uint8Array.from(atob(REWIND_MODULE), (character) => character.charCodeAt(0));
    const { instance } = await WebAssembly.instantiate(code, { rewind: { heap, image } });
    return new Checkpoint(heap, runs, instance.exports as unknown as RewindExports);
  }

  /**
   * Makes the memory what it was, byte for byte, and zeroes whatever it has grown by since: `calloc` trusts memory
   * fresh from the system to be zero.
   *
   * @returns how many blocks of 4 KiB had changed.
   */
  restore(): number {
    let changed = 0;
    for (const { start, end, source } of this.#runs) {
      changed += source === null ? this.#rewind.clear(start, end) : this.#rewind.restore(start, end, source);
    }
    const grownTo = this.#heap.buffer.byteLength;
    if (grownTo > this.heapBytes) changed += this.#rewind.clear(this.heapBytes, grownTo);
    return changed;
  }
}

function findRuns(bytes: Uint8Array): Run[] {
  const runs: Run[] = [];
  const words = new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8);
  const isZero = (block: number) => {
    const end = (block + BLOCK_BYTES) / 8;
    for (let word = block / 8; word < end; word++) if (words[word] !== 0n) return false;
    return true;
  };
  let source = 0;
  for (let start = 0; start < bytes.length; ) {
    const zero = isZero(start);
    let end = start + BLOCK_BYTES;
    while (end < bytes.length && isZero(end) === zero) end += BLOCK_BYTES;
    runs.push({ start, end, source: zero ? null : source });
    if (!zero) source += end - start;
    start = end;
  }
  return runs;
}
