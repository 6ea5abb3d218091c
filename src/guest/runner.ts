import type { RunnerOutcome } from "../sandbox/protocol.ts";
import type { Exports } from "./emscripten.ts";
import type { RunnerAnswer } from "./outlet.ts";

const encoder = new TextEncoder();
const LINE_BREAK = 10;

/** Calls `sandbox_runner.execution.run` with bytes and gets bytes, through the C API: no proxy is ever made. */
export class Runner {
  readonly #exports: Exports;
  readonly #run: number;

  constructor(exports: Exports) {
    this.#exports = exports;
    const module = withCString(exports, "sandbox_runner.execution", (name) => exports.PyImport_ImportModule(name));
    this.#run = module && withCString(exports, "run", (name) => exports.PyObject_GetAttrString(module, name));
    if (!this.#run) throw new Error("sandbox_runner.execution.run is missing in the image");
  }

  /** @throws whatever came out of WebAssembly; the interpreter is then lost. */
  run(request: object): RunnerAnswer {
    const exports = this.#exports;
    const bytes = encoder.encode(JSON.stringify(request));
    const argument = exports.PyBytes_FromStringAndSize(0, bytes.length);
    if (!argument) return this.#failed();
    new Uint8Array(exports.memory.buffer).set(bytes, exports.PyBytes_AsString(argument));
    const answer = exports.PyObject_CallOneArg(this.#run, argument);
    exports.Py_DecRef(argument);
    if (!answer) return this.#failed();
    const start = exports.PyBytes_AsString(answer);
    const lines = new Uint8Array(exports.memory.buffer).slice(start, start + exports.PyBytes_Size(answer));
    exports.Py_DecRef(answer);
    // Compact JSON has no line break. Where there is none at all, the host refuses the value that is missing.
    const end = lines.indexOf(LINE_BREAK);
    return { outcome: lines.subarray(0, end), value: lines.subarray(end + 1) };
  }

  /** The runner itself raised: an interrupt hit it outside its own `try`, or memory ran out there. */
  #failed(): RunnerAnswer {
    this.#exports.PyErr_Clear();
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
