/**
 * The worker that holds the interpreter. It boots, says `ready`, and from then on runs one job after another in a loop that
 * never returns to JavaScript's event loop.
 */
import { receiveMessageOnPort } from "node:worker_threads";
import type { MimeBundle, Verdict } from "../sandbox/protocol.ts";
import { type Answer, type Boot, CONTROL, type FromWorker, type Job, type ToWorker } from "./channel.ts";
import { Devices } from "./device.ts";
import type { Exports } from "./emscripten.ts";
import { freeze, TenantFiles, WRITABLE_ROOTS } from "./filesystem.ts";
import { Checkpoint } from "./image.ts";
import { JavaScriptState } from "./javascript-state.ts";
import { loadInterpreter, type Pyodide } from "./load.ts";
import { closeRealm, revokePermissions, sealImports, severReferences } from "./realm.ts";

const encoder = new TextEncoder();
const post = self.postMessage.bind(self) as (message: FromWorker, transfer?: Transferable[]) => void;

self.onmessage = (event: MessageEvent<Boot>) => {
  self.onmessage = null;
  start(event.data).catch((error) => {
    post({ type: "fatal", reason: `boot failed: ${error?.stack ?? error}` });
  });
};

async function start(boot: Boot): Promise<void> {
  const revoke = revokePermissions;
  const mailbox = new Mailbox(boot);
  const seal = sealImports();
  const { pyodide, module, exports } = await loadInterpreter(boot, seal.wrap);
  const devices = new Devices(module.FS, boot.shared, mailbox);
  devices.install();
  for (const [path, source] of Object.entries(boot.sources)) {
    const target = `/lib/${path}`;
    module.FS.mkdirTree(target.slice(0, target.lastIndexOf("/")));
    module.FS.writeFile(target, encoder.encode(source));
  }
  if (boot.image === null) {
    post({ type: "image", pythonVersion: buildImage(pyodide, boot.preload), image: pyodide.makeMemorySnapshot() });
    return;
  }
  const pythonVersion = pyodide.runPython("import sys; sys.version.split()[0]") as string;
  const runner = new Runner(exports);
  for (const root of WRITABLE_ROOTS) module.FS.mkdirTree(root);
  module.FS.ignorePermissions = false;
  freeze(module.FS);
  const files = new TenantFiles(module.FS, (path) => mailbox.readFile(path));
  pyodide.setInterruptBuffer(new Uint8Array(boot.shared.interrupt));
  severReferences(module, exports);
  await revoke();
  closeRealm();
  const checkpoint = await Checkpoint.take(exports.memory);
  const state = new JavaScriptState(module, exports);
  seal.close();
  post({
    type: "ready",
    pythonVersion,
    pyodideVersion: pyodide.version,
    heapBytes: checkpoint.heapBytes,
    checkpoint: boot.hashCheckpoint ? await sha256(new Uint8Array(exports.memory.buffer)) : null,
  });
  for (;;) {
    const job = mailbox.nextJob();
    const verdict = execute(job);
    post({ type: "idle", verdict, heapBytes: exports.memory.buffer.byteLength });
    if (verdict.state === "discard") return;
  }

  function execute(job: Job): Verdict {
    devices.begin(job.stdin, job.stream);
    files.begin(job.files, job.quota);
    const startedAt = performance.now();
    let outcome: Uint8Array<ArrayBuffer>;
    try {
      outcome = runner.run(JSON.stringify({ code: job.code, context: job.context, fresh: true }));
    } catch (error) {
      // Out of WebAssembly by an exception of JavaScript's: a trap, or a stack that overflowed. Nothing can be believed.
      const executionTimeMs = performance.now() - startedAt;
      post({ type: "result", executionTimeMs, outcome: crashed(error), files: null, contents: [] });
      return { state: "discard", reason: "the interpreter crashed" };
    }
    const executionTimeMs = performance.now() - startedAt;
    const { changes, contents } = job.files === null ? { changes: null, contents: [] } : files.changes();
    post({ type: "result", executionTimeMs, outcome, files: changes, contents }, [outcome.buffer]);

    const reason =
      state.difference() ?? (exports.memory.buffer.byteLength > boot.maxHeapBytes ? "heap over its limit" : null);
    if (reason !== null) return { state: "discard", reason };
    const restoredPages = checkpoint.restore();
    state.restore();
    files.reset();
    devices.reset();
    return { state: "pristine", restoredPages };
  }
}

/** Imports all that every execution needs, so that the image holds it. Returns Python's version. */
function buildImage(pyodide: Pyodide, preload: readonly string[]): string {
  return pyodide.runPython(`
import sys
sys.path.insert(0, "/lib")
import sandbox_runner.execution
sys.path.remove("/lib")
sandbox_runner.execution.prepare()
for name in ${JSON.stringify(preload)}:
    __import__(name)
while "" in sys.path:
    sys.path.remove("")  # Pyodide puts it back at each start
import __main__
for name in [name for name in vars(__main__) if not name.startswith("__")]:
    if name != "sys": del vars(__main__)[name]
import gc
gc.collect()
sys.version.split()[0]
`) as string;
}

/** Calls `sandbox_runner.execution.run` with bytes and gets bytes, through the C API: no proxy is ever made. */
class Runner {
  readonly #exports: Exports;
  readonly #run: number;

  constructor(exports: Exports) {
    this.#exports = exports;
    const module = this.#withCString("sandbox_runner.execution", (name) => exports.PyImport_ImportModule(name));
    this.#run = module && this.#withCString("run", (name) => exports.PyObject_GetAttrString(module, name));
    if (!this.#run) throw new Error("sandbox_runner.execution.run is missing in the image");
  }

  /** @throws whatever came out of WebAssembly; the interpreter is then lost. */
  run(request: string): Uint8Array<ArrayBuffer> {
    const exports = this.#exports;
    const bytes = encoder.encode(request);
    const argument = exports.PyBytes_FromStringAndSize(0, bytes.length);
    if (!argument) return this.#failed();
    new Uint8Array(exports.memory.buffer).set(bytes, exports.PyBytes_AsString(argument));
    const answer = exports.PyObject_CallOneArg(this.#run, argument);
    exports.Py_DecRef(argument);
    if (!answer) return this.#failed();
    const start = exports.PyBytes_AsString(answer);
    const outcome = new Uint8Array(exports.memory.buffer).slice(start, start + exports.PyBytes_Size(answer));
    exports.Py_DecRef(answer);
    return outcome;
  }

  /** The runner itself raised: an interrupt hit it outside its own `try`, or memory ran out there. */
  #failed(): Uint8Array<ArrayBuffer> {
    this.#exports.PyErr_Clear();
    const message = "the execution was interrupted, or ran out of memory, while its result was prepared";
    return outcomeOf("ExecutionError", message);
  }

  #withCString<T>(text: string, use: (pointer: number) => T): T {
    const bytes = encoder.encode(`${text}\0`);
    const pointer = this.#exports.malloc(bytes.length);
    new Uint8Array(this.#exports.memory.buffer).set(bytes, pointer);
    try {
      return use(pointer);
    } finally {
      this.#exports.free(pointer);
    }
  }
}

function crashed(error: unknown): Uint8Array<ArrayBuffer> {
  const overflow = error instanceof RangeError;
  return outcomeOf(
    "FatalError",
    overflow ? "the interpreter's stack overflowed" : "the interpreter crashed and was replaced",
  );
}

function outcomeOf(type: string, message: string): Uint8Array<ArrayBuffer> {
  const errorInfo = { type, message, traceback: `${type}: ${message}\n`, line: null, column: null };
  return encoder.encode(JSON.stringify({ success: false, result: null, error: message, errorInfo, outputs: [] }));
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Messages from the main thread, taken synchronously. */
class Mailbox {
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #interrupt: Uint8Array;
  readonly #port: MessagePort;
  #nextCall = 1;

  constructor({ shared, port }: Boot) {
    this.#control = new Int32Array(shared.control);
    this.#interrupt = new Uint8Array(shared.interrupt);
    this.#port = port;
  }

  nextJob(): Job {
    for (;;) {
      const message = this.#next();
      if (message.type === "job") return message;
    }
  }

  sleep(durationMs: number): void {
    const deadline = performance.now() + durationMs;
    for (let left = durationMs; left > 0 && this.#interrupt[0] === 0; left = deadline - performance.now()) {
      Atomics.wait(this.#control, CONTROL.WAKE, Atomics.load(this.#control, CONTROL.WAKE), left);
    }
  }

  display(bundle: MimeBundle): void {
    post({ type: "display", bundle });
  }

  announceOutput(): void {
    post({ type: "output" });
  }

  call(operation: string, argument: unknown): { value: unknown; error?: string } {
    const { value, error } = this.#ask(operation, argument);
    return error === undefined ? { value } : { value, error };
  }

  /** @throws if the host refuses. */
  readFile(path: string): Uint8Array {
    const answer = this.#ask("read-file", path);
    if (answer.error !== undefined) throw new Error(answer.error);
    return answer.body;
  }

  #ask(operation: string, argument: unknown): Answer {
    const call = this.#nextCall++;
    post({ type: "call", call, operation, argument });
    for (;;) {
      const message = this.#next();
      if (message.type === "answer" && message.call === call) return message;
    }
  }

  #next(): ToWorker {
    for (;;) {
      const seen = Atomics.load(this.#control, CONTROL.WAKE);
      const received = receiveMessageOnPort(this.#port as never);
      if (received) return received.message as ToWorker;
      Atomics.wait(this.#control, CONTROL.WAKE, seen);
    }
  }
}
