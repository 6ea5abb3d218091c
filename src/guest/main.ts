/**
 * The main thread of a sandbox process: carries frames between the pipes and the interpreter's worker, and interrupts.
 *
 * It alone knows the nonces, so nothing that happens in the worker can produce a frame the host accepts.
 */
import {
  concatenate,
  encodeFrame,
  type Frame,
  FrameReader,
  type GuestMessage,
  type GuestOptions,
  HOST_MESSAGE_TYPES,
  type HostMessage,
  MAX_OUTPUT_BYTES,
} from "../sandbox/protocol.ts";
import { type Boot, CONTROL, type Envelope, type FromWorker, type Printed, type Shared } from "./channel.ts";
import { revokePermissions } from "./realm.ts";

const SIGINT = 2;
const guestDir = new URL(".", import.meta.url);

const shared: Shared = {
  control: new SharedArrayBuffer(CONTROL.LENGTH * 4),
  interrupt: new SharedArrayBuffer(1),
  stdout: new SharedArrayBuffer(MAX_OUTPUT_BYTES),
  stderr: new SharedArrayBuffer(MAX_OUTPUT_BYTES),
};
const control = new Int32Array(shared.control);
const interrupt = new Uint8Array(shared.interrupt);
const sent = { stdout: 0, stderr: 0 };
let relayedDisplays = 0;
const { port1: mailbox, port2: port } = new MessageChannel();

let processNonce = "";
let jobNonce = "";

const [pyodideDir = ""] = Deno.args;
const pyodideUrl = new URL(`file://${pyodideDir}/`).href;
// Neither waits for what the host has to say.
const worker = new Worker(new URL("interpreter.ts", guestDir), { type: "module", name: pyodideUrl });
const program = readProgram();
worker.onmessage = (event: MessageEvent<FromWorker>) => relay(event.data);
worker.onerror = (event) => {
  event.preventDefault();
  fail(event.message);
};

const frames = readFrames();
const first = await frames.next();
if (first.done || first.value.message.type !== "start") throw new Error("the host did not say start");
processNonce = first.value.nonce;
const boot = await readBoot(first.value.message.options);
// Given away, not copied: together they are larger than all else a sandbox holds.
const given = [boot.stdlib, boot.base, boot.image].flatMap((bytes) => (bytes ? [bytes.buffer as ArrayBuffer] : []));
worker.postMessage(boot, [port, ...given]);
await revokeWhenReady();
for await (const { nonce, message, body } of frames) handle(nonce, message, body);
Deno.exit(0);

function handle(nonce: string, message: HostMessage, body: Uint8Array): void {
  switch (message.type) {
    case "execute":
    case "rewind":
      jobNonce = nonce;
      interrupt[0] = 0;
      toWorker(message);
      break;
    case "load":
      jobNonce = nonce;
      toWorker(message, body);
      break;
    case "interrupt":
      // A late one must not hit the next job.
      if (nonce !== jobNonce) break;
      sendOutput();
      interrupt[0] = SIGINT;
      wake();
      break;
    case "answer":
      if (nonce === jobNonce) toWorker(message, body);
      break;
    case "start":
      throw new Error("the host said start twice");
  }
}

function relay(message: FromWorker): void {
  switch (message.type) {
    case "result": {
      const { outcome, contents, executionTimeMs, files } = message;
      const stdout = takeOutput("stdout", printed());
      const stderr = takeOutput("stderr", printed());
      const truncated = Atomics.exchange(control, CONTROL.TRUNCATED, 0) === 1;
      const header: GuestMessage = {
        type: "result",
        executionTimeMs,
        outcomeBytes: outcome.length,
        stdoutBytes: stdout.length,
        stderrBytes: stderr.length,
        truncated,
        files,
      };
      clearOutput();
      send(jobNonce, header, outcome, stdout, stderr, ...contents);
      break;
    }
    case "idle":
      send(jobNonce, message);
      jobNonce = "";
      break;
    case "output":
      sendOutput();
      break;
    case "display": {
      const { stdout, stderr, ...header } = message;
      sendUpTo({ stdout, stderr });
      send(jobNonce, header);
      relayedDisplays++;
      sendOutput();
      break;
    }
    case "call":
      send(jobNonce, message);
      break;
    case "state": {
      const { blocks, data, ...header } = message;
      send(jobNonce, header, new Uint8Array(blocks.buffer, blocks.byteOffset, blocks.byteLength), data);
      break;
    }
    case "image": {
      const { image, ...header } = message;
      send(processNonce, header, image);
      break;
    }
    case "ready":
    case "fatal":
      send(processNonce, message);
      break;
  }
}

function fail(reason: string): void {
  send(processNonce, { type: "fatal", reason });
}

function toWorker(message: HostMessage, content?: Uint8Array): void {
  const body = new Uint8Array(content ?? []).buffer;
  const envelope: Envelope = { message: JSON.stringify(message), body };
  mailbox.postMessage(envelope, [body]);
  wake();
}

function wake(): void {
  Atomics.add(control, CONTROL.WAKE, 1);
  Atomics.notify(control, CONTROL.WAKE);
}

function printed(): Printed {
  return {
    stdout: Atomics.load(control, CONTROL.STDOUT_BYTES),
    stderr: Atomics.load(control, CONTROL.STDERR_BYTES),
  };
}

/** What was printed and not sent yet. */
function takeOutput(stream: "stdout" | "stderr", upTo: Printed): Uint8Array {
  const end = Math.max(sent[stream], Math.min(upTo[stream], MAX_OUTPUT_BYTES));
  const bytes = new Uint8Array(shared[stream]).slice(sent[stream], end);
  sent[stream] = end;
  return bytes;
}

function sendOutput(): void {
  // In this order: what is printed from here on is announced again, what was displayed from here on came after `upTo`.
  Atomics.store(control, CONTROL.OUTPUT_ANNOUNCED, 0);
  const upTo = printed();
  // Displayed data that is on its way here may belong in between; the last of it calls this again.
  if (Atomics.load(control, CONTROL.DISPLAYS) === relayedDisplays) sendUpTo(upTo);
}

function sendUpTo(upTo: Printed): void {
  for (const stream of ["stdout", "stderr"] as const) {
    const bytes = takeOutput(stream, upTo);
    if (bytes.length > 0) send(jobNonce, { type: "output", stream }, bytes);
  }
}

/** Only while the worker prints nothing: between its `result` and its next job. */
function clearOutput(): void {
  new Uint8Array(shared.stdout).fill(0, 0, sent.stdout);
  new Uint8Array(shared.stderr).fill(0, 0, sent.stderr);
  sent.stdout = sent.stderr = relayedDisplays = 0;
  control[CONTROL.STDOUT_BYTES] = 0;
  control[CONTROL.STDERR_BYTES] = 0;
  control[CONTROL.DISPLAYS] = 0;
}

function send(nonce: string, message: GuestMessage, ...body: Uint8Array[]): void {
  const chunks = encodeFrame(nonce, message, ...body);
  const bytes = chunks.length === 1 ? (chunks[0] as Uint8Array) : concatenate(chunks);
  // Synchronously: frames must not overtake one another.
  for (let written = 0; written < bytes.length; ) written += Deno.stdout.writeSync(bytes.subarray(written));
}

async function* readFrames(): AsyncGenerator<Frame<HostMessage>> {
  const reader = new FrameReader<HostMessage>(HOST_MESSAGE_TYPES);
  const buffer = new Uint8Array(64 * 1024);
  for (let size = await Deno.stdin.read(buffer); size !== null; size = await Deno.stdin.read(buffer)) {
    yield* reader.push(buffer.slice(0, size));
  }
}

async function readBoot(options: GuestOptions): Promise<Boot> {
  const readIfAny = (path: string | null | undefined) => (path == null ? null : Deno.readFile(path));
  const [base, image] = await Promise.all([
    readIfAny(options.baseImagePath),
    readIfAny(options.environment?.imagePath),
  ]);
  return { shared, port, pyodideUrl, ...(await program), base, image, options };
}

async function readProgram(): Promise<Pick<Boot, "module" | "stdlib" | "sources">> {
  const [module, stdlib, sources] = await Promise.all([
    Deno.readFile(`${pyodideDir}/pyodide.asm.wasm`).then((bytes) => WebAssembly.compile(bytes)),
    Deno.readFile(`${pyodideDir}/python_stdlib.zip`),
    readSources(),
  ]);
  return { module, stdlib, sources };
}

async function readSources(): Promise<Record<string, string>> {
  const sources: Record<string, string> = {};
  const dir = new URL("python/sandbox_runner/", guestDir);
  const names = Array.from(Deno.readDirSync(dir), (entry) => entry.name).filter((name) => name.endsWith(".py"));
  for (const name of names.sort()) sources[`sandbox_runner/${name}`] = await Deno.readTextFile(new URL(name, dir));
  return sources;
}

/** The worker has read all it needs once it reports; then this thread gives up its own permissions too. */
function revokeWhenReady(): Promise<void> {
  return new Promise((resolve, reject) => {
    const report = worker.onmessage;
    worker.onmessage = (event: MessageEvent<FromWorker>) => {
      worker.onmessage = report;
      revokePermissions().then(() => {
        relay(event.data);
        resolve();
      }, reject);
    };
  });
}
