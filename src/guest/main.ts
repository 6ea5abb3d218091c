/**
 * A sandbox process. This thread, the main one, boots the interpreter, says `ready`, and from then on does one task after another
 * in a loop that never returns to JavaScript's event loop. A second thread, the watcher, reads what the host sends meanwhile.
 */
import { type Frame, FrameReader, readHeaderOf } from "../wire/frames.ts";
import { type GuestOptions, ORDINARY_MESSAGE_TYPES, type OrdinaryMessage } from "../wire/messages.ts";
import { compileLibraries, openArchive } from "./files/archive-file.ts";
import { ReadableFile } from "./files/readable-file.ts";
import { boot } from "./interpreter/boot.ts";
import { build, isBuilding } from "./interpreter/build.ts";
import { Interpreter } from "./interpreter/interpreter.ts";
import { type Boot, importProgram } from "./interpreter/load.ts";
import { performTasks } from "./interpreter/tasks.ts";
import { HostConnection } from "./io/host-connection.ts";
import { createShared } from "./io/shared-state.ts";
import { exposeState, ROOM_BYTES } from "./memory/exposed-state.ts";
import { ImageFile } from "./memory/image-file.ts";
import { MemoryMapping } from "./memory/mapping.ts";

// Deno's own object is gone from the realm once the program is being imported.
const { args, exit, readDirSync, readFileSync, readTextFileSync, stdin } = Deno;
const [pyodideDir = ""] = args;
const guestDir = new URL(".", import.meta.url);

const { nonce, message } = readStart();
if (message.type !== "start") throw new Error("the host did not say start");
const shared = createShared();
const host = new HostConnection(shared, nonce);
try {
  await serve(message.options);
} catch (error) {
  host.announce({ type: "fatal", reason: `boot failed: ${error instanceof Error ? error.stack : error}` });
}
exit(0);

async function serve(options: GuestOptions): Promise<void> {
  const bytes = exposeState(readProgram());
  const compiling = WebAssembly.compile(bytes);
  // V8 has a copy of its own, and no collector runs in a thread that never ends its turn.
  void compiling.then(() => bytes.buffer.transfer(0));
  // This and all that follows while the program is being compiled, on whatever core is free.
  const watcher = new Worker(new URL("io/watcher.ts", guestDir), { type: "module" });
  const watcherLoaded = nextWord(watcher);
  const read = await readBoot(options, compiling);
  if (isBuilding(read)) {
    // It has permissions, and nothing to do.
    watcher.terminate();
    const { image, ...facts } = await build(read, host);
    host.announce({ type: "image", ...facts }, image);
    return;
  }
  await watcherLoaded;
  let watching: Promise<void> | undefined;
  const booted = await boot(read, host, () => {
    // Not before: what one thread gives up, all lose.
    watcher.postMessage(shared);
    watching = nextWord(watcher);
  });
  const interpreter = new Interpreter(booted, host, options);
  const { program, pythonVersion, pyodideVersion, everyPage, hash } = booted;
  const { memory } = program.exports;
  const heapBytes = memory.buffer.byteLength;
  const baseline = await hash();
  await watching;
  host.announce({ type: "ready", pythonVersion, pyodideVersion, heapBytes, everyPage, baseline });
  await performTasks(interpreter, host, memory);
}

/** The interpreter's program, with room before it. */
function readProgram(): Uint8Array<ArrayBuffer> {
  const file = new ReadableFile(`${pyodideDir}/pyodide.asm.wasm`);
  const bytes = new Uint8Array(ROOM_BYTES + file.bytes);
  file.readInto(bytes.subarray(ROOM_BYTES), 0);
  file.close();
  return bytes;
}

/** The first frame, which the host sends with nothing behind it. */
function readStart(): Frame<OrdinaryMessage> {
  const reader = new FrameReader<OrdinaryMessage>(readHeaderOf(ORDINARY_MESSAGE_TYPES));
  const buffer = new Uint8Array(64 * 1024);
  for (let size = stdin.readSync(buffer); size !== null; size = stdin.readSync(buffer)) {
    const [frame] = reader.push(buffer.slice(0, size));
    if (frame) return frame;
  }
  throw new Error("the host said nothing");
}

/** Resolves once the thread says something. */
function nextWord(thread: Worker): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  thread.onmessage = () => resolve();
  thread.onerror = (event) => {
    event.preventDefault();
    reject(new Error(event.message));
  };
  return promise;
}

/** Reads all that a start needs. */
async function readBoot(options: GuestOptions, compiling: Promise<WebAssembly.Module>): Promise<Boot> {
  const { baseImagePath, stdlibPath, environment } = options;
  const mapping = openMapping(options);
  const openIfAny = (path: string | null | undefined) => (path == null ? null : new ImageFile(path, mapping));
  const pyodideUrl = new URL(`file://${pyodideDir}/`).href;
  const importing = importProgram(pyodideUrl);
  const [base, image] = [openIfAny(baseImagePath), openIfAny(environment?.imagePath)];
  const compilingLibraries = environment
    ? compileLibraries(openArchive(environment.archivePath), environment.libraries)
    : {};
  const files = {
    stdlib: stdlibPath === null ? readFileSync(`${pyodideDir}/python_stdlib.zip`) : openArchive(stdlibPath),
    sources: readSources(),
    base,
    image,
    interrupt: new Uint8Array(shared.interrupt),
  };
  // What a baseline will be made of. An environment's base goes later to where it is to be, and nowhere else.
  if (image !== null || environment === null) (image ?? base)?.toMemory();
  const [module, createModule, libraries] = await Promise.all([compiling, importing, compilingLibraries]);
  return { pyodideUrl, createModule, module, libraries, options, ...files };
}

/** @returns why memory cannot be mapped, if it cannot. */
function openMapping({ mapMemory }: GuestOptions): MemoryMapping | string {
  if (!mapMemory) return "memory is not to be mapped";
  try {
    return new MemoryMapping();
  } catch (error) {
    return (error as Error).message;
  }
}

function readSources(): Record<string, string> {
  const sources: Record<string, string> = {};
  const dir = new URL("python/sandbox_runner/", guestDir);
  const names = Array.from(readDirSync(dir), (entry) => entry.name).filter((name) => /\.(py|txt)$/.test(name));
  for (const name of names.sort()) sources[`sandbox_runner/${name}`] = readTextFileSync(new URL(name, dir));
  return sources;
}
