import type { ErrorInfo } from "../../wire/guest-messages.ts";
import type { Program } from "../../wire/messages.ts";
import type { RunnerReply } from "../io/frame-writer.ts";
import type { Exports } from "./emscripten.ts";
import { Generators } from "./generators.ts";
import { bytesOf, withCString } from "./python-objects.ts";

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
    return this.#callWith(object);
  }

  /** As `call`, with a string. @param text has no lone surrogates. */
  callWithText(text: string): Uint8Array<ArrayBuffer> | null {
    const exports = this.#exports;
    const bytes = encoder.encode(text);
    const pointer = exports.malloc(Math.max(1, bytes.length));
    if (!pointer) return null;
    new Uint8Array(exports.memory.buffer).set(bytes, pointer);
    const object = exports.PyUnicode_FromStringAndSize(pointer, bytes.length);
    exports.free(pointer);
    return object ? this.#callWith(object) : this.#raised();
  }

  #callWith(object: number): Uint8Array<ArrayBuffer> | null {
    const exports = this.#exports;
    const answer = exports.PyObject_CallOneArg(this.#function, object);
    exports.Py_DecRef(object);
    if (!answer) return this.#raised();
    const result = bytesOf(exports, answer);
    exports.Py_DecRef(answer);
    return result;
  }

  #raised(): null {
    this.#exports.PyErr_Clear();
    return null;
  }
}

/**
 * Code that may be one expression, all of it: one line of ASCII that is indented by nothing and does not begin as a statement does. Python compiles it at
 * once, and not by way of a tree. Where it is none after all, it is read anew: so nothing may be in it of which Python warns while it reads, as
 * backslashes in strings and numbers that touch a letter, or the warning would come twice.
 */
const ONE_EXPRESSION =
  /^(?!(?:import|from|for|while|if|def|class|with|try|raise|assert|del|return|pass|global|nonlocal|async|match|type|break|continue)\b)(?![\w.,[\]'" ]*(?:[-+*/%&|^@]|\/\/|\*\*|<<|>>)?=[^=])(?!.*\d[A-Za-z_])[\w("'[{+~-][ !-:<-[\]-~]*$/;

/** Runs one execution's code. */
export class Runner {
  readonly #run: PythonFunction;
  readonly #runPlain: PythonFunction;
  readonly #runLine: PythonFunction;
  readonly #generators: Generators;

  /** At the baseline. */
  constructor(exports: Exports) {
    const find = (name: string) => new PythonFunction(exports, "sandbox_runner.execution", name);
    this.#run = find("run");
    this.#runPlain = find("run_plain");
    this.#runLine = find("run_line");
    this.#generators = new Generators(exports);
  }

  /** @throws whatever came out of WebAssembly; the interpreter is then lost. */
  run(program: Program): RunnerReply {
    const lines = this.#call(program);
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

  #call(program: Program): Uint8Array<ArrayBuffer> | null {
    const { code, context, tools, env, argv, execution, reseed, display } = program;
    // A session's generators need not be where the image's are. Python's strings have lone surrogates, UTF-8 has none.
    if (execution !== null || (reseed && !this.#generators.areKnown) || !code.isWellFormed())
      return this.#run.call(program);
    if (reseed) this.#generators.seed();
    const { printTraceback, question } = program;
    const isPlain = [env, argv, display, printTraceback, question].every((member) => member === undefined);
    if (!isPlain || context !== null || tools !== null) return this.#run.call({ ...program, reseed: false });
    return (ONE_EXPRESSION.test(code) ? this.#runLine : this.#runPlain).callWithText(code);
  }
}

/** The reply where none came from Python. */
export function failure(type: string, message: string): RunnerReply {
  const error: ErrorInfo = { type, message, traceback: `${type}: ${message}\n`, line: null, column: null };
  return { error: encoder.encode(JSON.stringify(error)), value: encoder.encode("null"), truncated: false };
}
