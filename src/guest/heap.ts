import type { Exports } from "./emscripten.ts";

/** `struct mallinfo`: ten words, of which these are looked at. */
const MALLINFO_BYTES = 40;
const KEEPCOST_WORD = 9;
/** The least that `malloc` gives out, and the step of its sizes, bytes. */
const LEAST_BYTES = 8;
/** What `malloc` needs of the top of the heap besides what it gives out. */
const TOP_RESERVE_BYTES = 256;

/**
 * Takes all free memory below the top of the C heap, zeroes it and keeps it, so that whatever runs on an image allocates
 * from one fresh place at the heap's end instead of from thousands of holes that importing has left.
 *
 * What a session or an execution changes then lies together: a session's state is a third as large, and a rewind copies
 * fewer pages. The holes stay unused, some 2 MiB in the standard library's image. Python's objects are in this heap too:
 * Pyodide's Python is built without an allocator of its own.
 *
 * @returns how many bytes were taken.
 */
export function fillHoles(exports: Exports): number {
  const topBytes = bytesAtTop(exports);
  const topStart = exports.sbrk(0) - topBytes;
  let taken = 0;
  // Never more than the top has, or the heap would grow for it.
  for (let bytes = multipleOf8(topBytes - TOP_RESERVE_BYTES); bytes >= LEAST_BYTES; ) {
    const pointer = exports.malloc(bytes);
    if (pointer === 0 || pointer >= topStart) {
      // No hole is so large.
      exports.free(pointer);
      bytes = Math.min(bytes - LEAST_BYTES, multipleOf8(bytes * 0.95));
      continue;
    }
    const usable = exports.malloc_usable_size(pointer);
    new Uint8Array(exports.memory.buffer).fill(0, pointer, pointer + usable);
    taken += usable;
  }
  return taken;
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
