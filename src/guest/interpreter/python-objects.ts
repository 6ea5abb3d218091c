import type { Exports } from "./emscripten.ts";

const encoder = new TextEncoder();

/** What a `bytes` object of Python's holds. */
export function bytesOf(exports: Exports, object: number): Uint8Array<ArrayBuffer> {
  const start = exports.PyBytes_AsString(object);
  return new Uint8Array(exports.memory.buffer).slice(start, start + exports.PyBytes_Size(object));
}

/** Calls `use` with a pointer to `text` that is valid until it returns. */
export function withCString<T>(exports: Exports, text: string, use: (pointer: number) => T): T {
  const bytes = encoder.encode(`${text}\0`);
  const pointer = exports.malloc(bytes.length);
  new Uint8Array(exports.memory.buffer).set(bytes, pointer);
  try {
    return use(pointer);
  } finally {
    exports.free(pointer);
  }
}
