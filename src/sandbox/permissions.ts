import { v8StackKib } from "../isolation/main-stack.ts";

const WASM_PAGES_PER_MB = 16;

/**
 * What V8 may do in a sandbox process: no code from strings, a stack and a memory of a limited size.
 *
 * @param isCompact whether it is to take less memory, and more time.
 */
export function v8Flags(memoryMb: number, stackBytes: number, isCompact: boolean): string[] {
  return [
    "--disallow-code-generation-from-strings",
    `--stack-size=${v8StackKib(stackBytes)}`,
    `--wasm-max-mem-pages=${memoryMb * WASM_PAGES_PER_MB}`,
    ...(isCompact ? ["--optimize-for-size"] : []),
  ];
}

/**
 * What Deno lets a sandbox process do until it is ready; then it gives up what is left (`guest/interpreter/realm.ts`).
 *
 * @param mapMemory whether it maps its memory from a file, for which it calls the C library: `guest/memory/mapping.ts`.
 */
export function permissionFlags(readable: readonly string[], mapMemory: boolean): string[] {
  return [
    `--allow-read=${readable.join(",")}`,
    "--deny-write",
    "--deny-net",
    "--deny-env",
    "--deny-run",
    mapMemory && process.platform === "linux" ? "--allow-ffi" : "--deny-ffi",
    "--deny-sys",
    "--deny-import",
  ];
}
