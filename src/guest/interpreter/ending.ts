import type { Exports } from "./emscripten.ts";
import { bytesOf, withCString } from "./python-objects.ts";

/**
 * Names without which a program leaves nothing, besides open files and what it registers, whose end shows: classes with a finaliser,
 * generators and coroutines in the middle of something, files that are wrapped around a descriptor that is always open, and code that is
 * made at run time and may have any of these.
 */
const MAY_LEAVE =
  /__del__|\byield\b|\basync\b|\bexec\b|\beval\b|\brunpy\b|\bfdopen\b|\bclosefd\b|TextIOWrapper|Buffered/;

const FUNCTIONS = ["end", "end_if_registered", "end_files", "finish", "flush_files"] as const;
type FunctionName = (typeof FUNCTIONS)[number];

/** Ends programs as Python does. See `python/sandbox_runner/ending.py`. */
export class Ending {
  readonly #exports: Exports;
  readonly #isInterrupted: () => boolean;
  readonly #functions: Readonly<Record<FunctionName, number>>;

  /** @param isInterrupted whether the execution's time is up. */
  constructor(exports: Exports, isInterrupted: () => boolean) {
    this.#exports = exports;
    this.#isInterrupted = isInterrupted;
    const module = withCString(exports, "sandbox_runner.ending", (name) => exports.PyImport_ImportModule(name));
    const find = (name: string) =>
      withCString(exports, name, (pointer) => exports.PyObject_GetAttrString(module, pointer));
    this.#functions = Object.fromEntries(FUNCTIONS.map((name) => [name, find(name)])) as Record<FunctionName, number>;
  }

  /**
   * Does what happens at the end of a program.
   *
   * @param hasFiles whether it has left files open.
   * @throws whatever came out of WebAssembly; the interpreter is then lost.
   */
  endProgram(code: string, hasFiles: boolean): void {
    if (this.#isInterrupted()) {
      if (hasFiles) this.#finalise("end_files");
    } else {
      this.#finalise(hasFiles || MAY_LEAVE.test(code) ? "end" : "end_if_registered");
    }
  }

  /** Has files that stay open write what they hold back. @throws as `endProgram`. */
  flushFiles(): void {
    this.#call("flush_files");
  }

  #finalise(how: FunctionName): void {
    const bytes = this.#call(how);
    // Interrupted: there is no time for more than the files.
    if (bytes === null && how !== "end_files") this.#finalise("end_files");
    if (bytes === null || bytes.length === 0) return;
    const [own = 0, ...objects] = new Uint32Array(bytes.buffer, 0, bytes.length / 4);
    objects.forEach((object, index) => {
      if (index >= own || !this.#isInterrupted()) this.#exports.PyObject_CallFinalizer(object);
    });
    this.#call("finish");
  }

  /** @returns null if it raised: an interrupt, or memory ran out. */
  #call(name: FunctionName): Uint8Array<ArrayBuffer> | null {
    const exports = this.#exports;
    const answer = exports.PyObject_CallNoArgs(this.#functions[name]);
    if (!answer) {
      exports.PyErr_Clear();
      return null;
    }
    const bytes = bytesOf(exports, answer);
    exports.Py_DecRef(answer);
    return bytes;
  }
}
