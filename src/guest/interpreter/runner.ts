import type { ErrorInfo } from "../../wire/guest-messages.ts";
import type { Program } from "../../wire/messages.ts";
import type { RunnerReply } from "../io/frame-writer.ts";
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
  run(program: Program): RunnerReply {
    const lines = this.#run.call(program);
    if (lines !== null) {
      // Compact JSON has no line break. Where one is missing, the host refuses what is no JSON.
      const first = lines.indexOf(LINE_BREAK);
      const second = lines.indexOf(LINE_BREAK, first + 1);
      const error = lines.subarray(0, first);
      return { error, truncated: second > first + 1, value: lines.subarray(second + 1) };
    }
    // The runner itself raised: an interrupt hit it outside its own `try`, or memory ran out there.
    const message = "the execution was interrupted, or ran out of memory, while its result was prepared";
    return failure("ExecutionError", message);
  }
}

/** The reply where none came from Python. */
export function failure(type: string, message: string): RunnerReply {
  const error: ErrorInfo = { type, message, traceback: `${type}: ${message}\n`, line: null, column: null };
  return { error: encoder.encode(JSON.stringify(error)), value: encoder.encode("null"), truncated: false };
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
