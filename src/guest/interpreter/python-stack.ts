import type { Exports } from "./emscripten.ts";

/**
 * Python's stack in memory, on which it sees itself recurse; V8's stack, on which WebAssembly's calls are as well, it does not see. Of the 10 MiB that
 * there are Python is told of the first 2, so that RecursionError comes while there is room on V8's (`isolation/main-stack.ts`): [measured] what
 * Python checks at all fills it with 14 times as much at the most.
 */
const CHECKED_BYTES = 2 * 1024 * 1024;
/** What is left when Python takes an overflow for fatal. */
const RESERVE_BYTES = 1024 * 1024;
/** The far end. */
const GUARD_BYTES = 64 * 1024;
/** Looked at in steps that no frame's size is a multiple of, so that in the frames of a recursion each word has its turn. */
const STEP_WORDS = 15;
/** More than the fields of a `PyThreadState` up to the one that is looked for. */
const THREAD_STATE_WORDS = 256;

/**
 * Has Python raise RecursionError while there is room on V8's stack, too, and as long as there is room on its own.
 *
 * Of itself it raises it in a narrow margin before the end that it was told of, and ends the process below that: `map` of `map` of …, which recurses without
 * asking, calls what does ask from far below. So the second limit is moved to the real end.
 */
export function limitRecursion(exports: Exports): void {
  const thread = exports.PyThreadState_Get();
  const words = new Uint32Array(exports.memory.buffer, thread, THREAD_STATE_WORDS);
  const base = exports.emscripten_stack_get_base();
  const protect = (bytes: number) => {
    if (exports.PyUnstable_ThreadState_SetStackProtection(thread, base - bytes, bytes) !== 0) {
      throw new Error("Python did not take the limit of its stack");
    }
    return words.slice();
  };
  // The fields are private: they are those that follow the end that is told.
  const before = protect(2 * CHECKED_BYTES);
  const after = protect(CHECKED_BYTES);
  const moved = Array.from(after.keys()).filter((index) => word(after, index) - word(before, index) === CHECKED_BYTES);
  const limits = moved.map((index) => word(after, index)).filter((address) => address > base - CHECKED_BYTES);
  const [hard, soft] = limits.toSorted((a, b) => a - b);
  if (hard === undefined || soft === undefined || limits.length !== 2) {
    throw new Error("Python keeps the limits of its stack elsewhere");
  }
  words[after.indexOf(hard)] = exports.emscripten_stack_get_end() + RESERVE_BYTES;
}

const word = (words: Uint32Array, index: number) => words[index] as number;

/**
 * Tells whether calls went to the end of Python's stack. Below it are Python's own variables, and nothing stops a call from writing there: C code
 * that recurses without asking Python's limit may do so, and come back as if nothing had happened.
 */
export class StackGuard {
  readonly #exports: Exports;
  readonly #start: number;

  constructor(exports: Exports) {
    this.#exports = exports;
    this.#start = exports.emscripten_stack_get_end();
  }

  wasReached(): boolean {
    const words = new Uint32Array(this.#exports.memory.buffer, this.#start, GUARD_BYTES / 4);
    for (let index = 0; index < words.length; index += STEP_WORDS) if (words[index] !== 0) return true;
    return false;
  }
}
