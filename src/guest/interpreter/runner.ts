import type { RunnerOutcome } from "../../wire/frames.ts";
import type { RunnerAnswer } from "../io/frame-writer.ts";
import type { Exports } from "./emscripten.ts";

const encoder = new TextEncoder();
const LINE_BREAK = 10;

/** A function of Python's that takes bytes and returns bytes, called through the C API: no proxy is ever made. */
export class PythonFunction {
  readonly #exports: Exports;
  readonly #function: number;

  constructor(exports: Exports, module: string, name: string) {
    this.#exports = exports;
    const pointer = withCString(exports, module, (text) => exports.PyImport_ImportModule(text));
    this.#function = pointer && withCString(exports, name, (text) => exports.PyObject_GetAttrString(pointer, text));
    if (!this.#function) throw new Error(`${module}.${name} is missing in the image`);
  }

  /**
   * @param argument becomes JSON.
   * @returns null if it raised. @throws whatever came out of WebAssembly; the interpreter is then lost.
   */
  call(argument: unknown): Uint8Array<ArrayBuffer> | null {
    const exports = this.#exports;
    const bytes = encoder.encode(JSON.stringify(argument));
    const object = exports.PyBytes_FromStringAndSize(0, bytes.length);
    if (!object) return this.#raised();
    new Uint8Array(exports.memory.buffer).set(bytes, exports.PyBytes_AsString(object));
    const answer = exports.PyObject_CallOneArg(this.#function, object);
    exports.Py_DecRef(object);
    if (!answer) return this.#raised();
    const start = exports.PyBytes_AsString(answer);
    const result = new Uint8Array(exports.memory.buffer).slice(start, start + exports.PyBytes_Size(answer));
    exports.Py_DecRef(answer);
    return result;
  }

  #raised(): null {
    this.#exports.PyErr_Clear();
    return null;
  }
}

/** Runs one execution's code. */
export class Runner {
  readonly #run: PythonFunction;

  constructor(exports: Exports) {
    this.#run = new PythonFunction(exports, "sandbox_runner.execution", "run");
  }

  /** @throws whatever came out of WebAssembly; the interpreter is then lost. */
  run(request: object): RunnerAnswer {
    const lines = this.#run.call(request);
    if (lines !== null) {
      // Compact JSON has no line break. Where there is none at all, the host refuses the value that is missing.
      const end = lines.indexOf(LINE_BREAK);
      return { outcome: lines.subarray(0, end), value: lines.subarray(end + 1) };
    }
    // The runner itself raised: an interrupt hit it outside its own `try`, or memory ran out there.
    const message = "the execution was interrupted, or ran out of memory, while its result was prepared";
    return failure("ExecutionError", message);
  }
}

/** The answer where none came from Python. */
export function failure(type: string, message: string): RunnerAnswer {
  const errorInfo = { type, message, traceback: `${type}: ${message}\n`, line: null, column: null };
  const outcome: RunnerOutcome = { success: false, error: message, errorInfo };
  return { outcome: encoder.encode(JSON.stringify(outcome)), value: encoder.encode("null") };
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
