import type { Exports } from "../interpreter/emscripten.ts";

/** `struct mallinfo`: ten words, of which these are looked at. */
const MALLINFO_BYTES = 40;
const KEEPCOST_WORD = 9;
/** The least that `malloc` gives out, and the step of its sizes, bytes. */
const LEAST_BYTES = 8;
const FIRST_BYTES = 256 * 1024;
/** What `malloc` needs of the top besides what it gives out. */
const TOP_RESERVE_BYTES = 256;

/**
 * Takes all free memory below the top of the C heap, zeroes it and keeps it, and zeroes the top, so that whatever runs on an image allocates
 * from one fresh place at the heap's end instead of from thousands of holes that importing has left.
 *
 * What a session or an execution changes then lies together: a session's state is a third as large, and a rewind copies
 * fewer pages. The holes stay unused, some 2 MiB in the standard library's image. Python's objects are in this heap too:
 * Pyodide's Python is built without an allocator of its own.
 *
 * @returns how many bytes were taken.
 */
export function fillHoles(exports: Exports): number {
  const top = findTop(exports);
  let taken = 0;
  for (let bytes = top.bytes; bytes >= LEAST_BYTES; ) {
    const pointer = exports.malloc(bytes);
    if (pointer === 0 || pointer >= top.pointer) {
      // No hole is so large.
      exports.free(pointer);
      bytes = Math.min(bytes - LEAST_BYTES, multipleOf8(bytes * 0.95));
      continue;
    }
    taken += zero(exports, pointer);
  }
  const rest = exports.malloc(bytesAtTop(exports) - TOP_RESERVE_BYTES);
  zero(exports, rest);
  exports.free(rest);
  return taken;
}

/** @returns how many bytes there were at `pointer`. */
function zero(exports: Exports, pointer: number): number {
  const usable = exports.malloc_usable_size(pointer);
  new Uint8Array(exports.memory.buffer).fill(0, pointer, pointer + usable);
  return usable;
}

/**
 * @returns what `malloc` gives out at the heap's end, and a size that no hole has but that end has from now on, so that the heap
 *   does not grow while sizes are tried.
 */
function findTop(exports: Exports): { pointer: number; bytes: number } {
  const aboutThere = exports.sbrk(0) - bytesAtTop(exports);
  for (let bytes = FIRST_BYTES; ; bytes *= 2) {
    const pointer = exports.malloc(bytes);
    exports.free(pointer);
    if (pointer === 0) throw new Error("there is no memory to look for the end of the heap");
    if (pointer + bytes > aboutThere) return { pointer, bytes };
  }
}

/** Size of the free block at the heap's end. */
function bytesAtTop(exports: Exports): number {
  const info = exports.malloc(MALLINFO_BYTES);
  exports.mallinfo(info);
  const bytes = new Uint32Array(exports.memory.buffer)[info / 4 + KEEPCOST_WORD] as number;
  exports.free(info);
  return bytes;
}

function multipleOf8(bytes: number): number {
  return Math.floor(bytes / 8) * 8;
}
