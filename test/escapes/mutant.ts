import { chmodSync, cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { copyBuilt } from "../support/built.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** One change of one source file: `from` must stand in it exactly once. */
export interface Edit {
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

const DENIED = ["write", "net", "env", "run", "sys", "import"];

/** Each layer of the defence, and how a copy of the source comes to be without it. `os` is a setting (ISOLATION=deno). */
export const LAYERS = {
  /** The language: no code from strings. */
  "code-generation": [{ file: "sandbox/launch.ts", from: '    "--disallow-code-generation-from-strings",\n', to: "" }],
  /** Imports that reach JavaScript, and shared libraries. */
  seal: [{ file: "guest/interpreter/boot.ts", from: "  imports.close();\n", to: "" }],
  /** Python's references to Pyodide's own JavaScript objects. */
  references: [
    { file: "guest/interpreter/tables.ts", from: "Object.freeze(Object.create(null))", to: "globalThis as object" },
  ],
  /** What the global object offers. */
  realm: [{ file: "guest/interpreter/boot.ts", from: "  closeRealm();\n  freezeRealm();\n", to: "" }],
  /** What the global object offers is as it was, for all who come. */
  "frozen-realm": [{ file: "guest/interpreter/boot.ts", from: "  freezeRealm();\n", to: "" }],
  /** Deno's permissions: every one granted, none given up. */
  deno: [
    {
      file: "sandbox/launch.ts",
      // biome-ignore lint/suspicious/noTemplateCurlyInString: source text.
      from: '`--allow-read=${readable.join(",")}`,\n',
      to: '"--allow-all",\n',
    },
    ...DENIED.map((name) => ({ file: "sandbox/launch.ts", from: `    "--deny-${name}",\n`, to: "" })),
    {
      file: "sandbox/launch.ts",
      from: '    guest.mapMemory && process.platform === "linux" ? "--allow-ffi" : "--deny-ffi",\n',
      to: "",
    },
    {
      file: "guest/interpreter/realm.ts",
      from: "  for (const name of PERMISSIONS) {\n",
      to: "  for (const name of [] as const) {\n",
    },
  ],
  /** Frames of the host's and of nobody else's making. */
  nonce: [
    { file: "sandbox/sandbox.ts", from: "if (!running || nonce !== running.nonce)", to: "if (!running)" },
    {
      file: "sandbox/sandbox.ts",
      from: "this.#changing !== null && nonce === this.#changing",
      to: "this.#changing !== null",
    },
  ],
  /** What a sandbox says is what it has to be. */
  "message-schema": [
    {
      file: "wire/guest-messages.ts",
      from: "  return checked(guestMessage, JSON.parse(text));\n",
      to: "  return JSON.parse(text);\n",
    },
  ],
  /** Nothing is parsed before it is bounded, or on the server's one thread. */
  "bounded-json": [
    { file: "http/body.ts", from: "const MAX_INLINE_BYTES = 128 * 1024;", to: "const MAX_INLINE_BYTES = 2 ** 40;" },
    {
      file: "http/body-parsing.ts",
      from: "maxDepth: 200, maxNodes: 50_000",
      to: "maxDepth: 2 ** 28, maxNodes: 2 ** 40",
    },
    {
      file: "sandbox/outcome.ts",
      from: "await JsonText.checkInSlices(valueBytes, VALUE_LIMITS) : JsonText.null;",
      to: "JsonText.of(JSON.parse(Buffer.from(valueBytes).toString())) : JsonText.null;",
    },
    {
      file: "shared/json/json-scanner.ts",
      from: "  if (bytes.length <= SLICE_BYTES) return scanJson(bytes, limits);\n",
      to: "  if (bytes.length <= 2 ** 40) return scanJson(bytes, limits);\n",
    },
  ],
  /** Read-only standard library. */
  "read-only-files": [{ file: "guest/interpreter/boot.ts", from: "  freeze(fs, ARCHIVE_MTIME_MS);\n", to: "" }],
  /** Memory as it was. */
  rewind: [
    {
      file: "guest/interpreter/interpreter.ts",
      from: "const restoredPages = this.#checkpoint.restore();",
      to: "const restoredPages = 0;",
    },
  ],
  /** What the system tells of the pages that were written to; left are those that it is tried out on. */
  "written-pages": [
    {
      file: "guest/memory/dirty-pages.ts",
      from: "isWhole ? read : ",
      to: "isWhole ? [...read.slice(0, 1), ...read.slice(-1)] : ",
    },
  ],
  /** An end that comes whatever the code does. */
  kill: [
    {
      file: "sandbox/running-job.ts",
      from: "      connection.kill(reason);\n    }, KILL_GRACE_MS);",
      to: "    }, KILL_GRACE_MS);",
    },
  ],
  /** What is printed goes to the host in frames, not as it is. */
  "framed-output": [
    {
      file: "guest/io/frame-writer.ts",
      from: "    this.#control[sent] = end;\n    return bytes;\n",
      to: `    this.#control[sent] = end;
    for (let at = 0; at < bytes.length; ) at += pipe.writeSync(bytes.subarray(at));
    return new Uint8Array(0);
`,
    },
  ],
  /** The host gives out a workspace's files by their names there. */
  "workspace-files": [
    {
      file: "executor/executor.ts",
      from: "    answer: async (path) => ({ value: null, body: await workspace.read(path) }),\n",
      to: `    answer: async (path) => {
      const { readFileSync } = await import("node:fs");
      return { value: null, body: readFileSync(path.startsWith("file:") ? new URL(path) : path) };
    },
`,
    },
  ],
  /** Addresses that no request may go to. What goes out then goes to the bait, whatever its address. */
  addresses: [
    {
      file: "egress/addresses.ts",
      from: "  if (!ipaddr.isValid(address)) return false;\n",
      to: "  if (address) return true;\n",
    },
    {
      file: "egress/exchange.ts",
      from: "new Client(origin, {",
      to: "new Client(process.env.BAIT_ORIGIN ?? origin, {",
    },
  ],
  /** Hosts that are named in NETWORK_ALLOW, and no others. */
  "allow-list": [
    {
      file: "egress/allow-list.ts",
      from: "    return this.#entries.some(\n",
      to: "    return this.#entries.length > 0 || this.#entries.some(\n",
    },
  ],
  /** A connection goes to the addresses that were checked, not to what the name has by then. */
  pinning: [{ file: "egress/exchange.ts", from: "connect: { lookup, timeout", to: "connect: { timeout" }],
  /** New seeds for each execution. */
  reseed: [
    { file: "executor/executor.ts", from: "execution: null, reseed: true", to: "execution: null, reseed: false" },
    { file: "sessions/run.ts", from: "    reseed = execution.reseed || state === null;\n", to: "" },
  ],
  /** Random bytes that are. */
  entropy: [
    {
      file: "guest/interpreter/boot.ts",
      from: "  clock.install();\n",
      to: `  clock.install();
  crypto.getRandomValues = (view) => (new Uint8Array(view.buffer, view.byteOffset, view.byteLength).fill(7), view);
`,
    },
  ],
  /** Folders as they were. */
  "file-reset": [{ file: "guest/interpreter/interpreter.ts", from: "    this.#files.reset();\n", to: "" }],
  /** Open files, counters of the file system: plain data, which is put back. */
  "javascript-reset": [{ file: "guest/interpreter/interpreter.ts", from: "    this.#state.restore();\n", to: "" }],
  /** No clock of user code's is finer than what browsers give. */
  "clock-resolution": [
    { file: "guest/interpreter/clock.ts", from: "RESOLUTION_MS = 0.1;", to: "RESOLUTION_MS = 0.001;" },
  ],
  /** What a principal is shown is its own. */
  "own-view": [
    { file: "http/resources/status.ts", from: "seesLoad ? pool : { size: pool.size }", to: "pool" },
    {
      file: "http/resources/statistics.ts",
      from: 'scopes.has("admin") ? undefined : id',
      to: "scopes ? undefined : id",
    },
    { file: "http/resources/statistics.ts", from: '"/metrics", requireScope("admin"), ', to: '"/metrics", ' },
    // biome-ignore lint/suspicious/noTemplateCurlyInString: source text.
    { file: "http/middleware/rate-limit.ts", from: "const key = `${id}|", to: "const key = `|" },
    { file: "http/resources/sessions.ts", from: "principalOf(response).id;", to: 'principalOf(response) && "alice";' },
    {
      file: "http/resources/files.ts",
      from: "workspaces.of(principalOf(response).id)",
      to: 'workspaces.of(principalOf(response) && "alice")',
    },
  ],
  /** What libraries of packages may have and ask for. */
  "library-check": [
    {
      file: "packages/package-set.ts",
      from: "const unsafe = await findUnsafeInThread(libraries, isWhole);",
      to: "const unsafe: Record<string, string> = {};",
    },
  ],
  /** The walls stand before a library is loaded. */
  "walls-first": [
    { file: "guest/interpreter/boot.ts", from: "  beforeWalls();\n  raiseWalls(imports);\n", to: "" },
    {
      file: "guest/interpreter/boot.ts",
      from: "  files.reset();\n",
      to: "  files.reset();\n  beforeWalls();\n  raiseWalls(imports);\n",
    },
    { file: "guest/interpreter/build.ts", from: "  raiseWalls(imports);\n", to: "" },
  ],
  /** An image is booted once before it counts. */
  "try-out": [
    {
      file: "environments/images.ts",
      from: "await tryImage(start, { ...environment, libraries, imagePath }, host);",
      to: "",
    },
  ],
  /** Global variables of WebAssembly's. */
  "outside-memory": [{ file: "guest/memory/javascript-state.ts", from: "    this.#outside.restore();\n", to: "" }],
  /** What one client can make grow or repeat is bounded. */
  "client-limits": [
    {
      file: "http/middleware/key-guesses.ts",
      from: "    this.#maxFailures = maxFailures;\n",
      to: "    this.#maxFailures = maxFailures && 0;\n",
    },
    {
      file: "security-log/folded-events.ts",
      from: "    if (group.written < burst) {",
      to: "    if (group.written < burst * 1e9) {",
    },
    { file: "security-log/event.ts", from: "const MAX_FIELD_BYTES = 256;", to: "const MAX_FIELD_BYTES = 1e6;" },
    {
      file: "security-log/security-log.ts",
      from: "if (!Number.isFinite(maxTotalBytes) ||",
      to: "if (Number.isFinite(maxTotalBytes) ||",
    },
    {
      file: "http/resources/stats-stream.ts",
      from: "(openStreams.get(id) ?? 0) >= maxStreams",
      to: "openStreams.values().reduce((a, b) => a + b, 0) >= 100",
    },
    {
      file: "http/middleware/connection-limit.ts",
      from: "    if (count >= maxOfNetwork) {",
      to: "    if (count >= maxOfNetwork * 2) {",
    },
    {
      file: "http/middleware/held-memory.ts",
      from: "const MAX_BYTES = 512 * 1024 * 1024;",
      to: "const MAX_BYTES = 512 * 1024 * 1024 * 1024;",
    },
  ],
  /** Equal contents of two principals are two. */
  "own-contents": [
    {
      file: "sessions/database.ts",
      from: '"SELECT id FROM contents WHERE owner = ? AND sha256 = ?"',
      to: '"SELECT id FROM contents WHERE owner > 0 * ? AND sha256 = ?"',
    },
  ],
  /** No principal's part of the session store is another's. */
  shares: [
    {
      file: "sessions/shares.ts",
      from: "return { maxBytes, maxBytesOfPrincipal: most, guaranteedBytes: Math.min(most, equalPart) };",
      to: "return { maxBytes, maxBytesOfPrincipal: maxBytes + most * 0, guaranteedBytes: 0 };",
    },
  ],
  /** JavaScript's side as it was, or the process is not used again. */
  "state-check": [
    {
      file: "guest/memory/javascript-state.ts",
      from: "  difference(): string | null {\n",
      to: "  difference(): string | null {\n    if (this) return null;\n",
    },
  ],
} as const satisfies Readonly<Record<string, readonly Edit[]>>;

export type Layer = keyof typeof LAYERS;

/** Runs `intruder.js` in one of the threads, when a first execution comes, in place of the interpreter. */
export const INTRUDER: Readonly<Record<"main" | "watcher", readonly Edit[]>> = {
  main: [
    {
      file: "guest/main.ts",
      from: "    const verdict = interpreter.perform(task.message, task.body);\n",
      // Other code than a visit's is the image cache's own, which compiles by it.
      to: `    if (task.message.type === "execute" && task.message.program.code.startsWith('{"suite"')) {
      const outcome = await intrude(JSON.parse(task.message.program.code));
      host.announce({ type: "fatal", reason: \`INTRUDER\${JSON.stringify(outcome)}\` });
      return;
    }
    const verdict = interpreter.perform(task.message, task.body);
`,
    },
    {
      file: "guest/main.ts",
      from: 'import { boot } from "./interpreter/boot.ts";\n',
      to: 'import { boot } from "./interpreter/boot.ts";\nimport { intrude } from "./intruder.js";\n',
    },
  ],
  watcher: [
    {
      file: "guest/io/watcher.ts",
      from: "      this.#inbox.write(head);\n      this.#input.pass(left, (bytes) => this.#inbox.write(bytes));\n",
      to: `      const rest = this.#input.take(left) as Uint8Array;
      const headerBytes = new DataView(head.buffer).getUint32(8, true);
      const { type, program } = JSON.parse(decoder.decode(rest.subarray(0, headerBytes)));
      if (type === "execute" && program.code.startsWith('{"suite"')) {
        const outcome = await intrude(JSON.parse(program.code));
        this.#outlet.send(nonce, { type: "fatal", reason: \`INTRUDER\${JSON.stringify(outcome)}\` });
      }
      this.#inbox.write(head);
      this.#inbox.write(rest);
`,
    },
    { file: "guest/io/watcher.ts", from: "  watch(): void {", to: "  async watch(): Promise<void> {" },
    { file: "guest/io/watcher.ts", from: "new Watcher(data).watch();", to: "await new Watcher(data).watch();" },
    {
      file: "guest/io/watcher.ts",
      from: 'import { Inbox } from "./input-ring.ts";\n',
      to: 'import { Inbox } from "./input-ring.ts";\nimport { intrude } from "../intruder.js";\n',
    },
  ],
};

/**
 * What the process says is changed on its way out, by `tamper.js`: as the code that runs asks in its first line, `#TAMPER {…}`,
 * and for the message `ready` as a file beside the source does.
 */
export const TAMPERING: readonly Edit[] = [
  {
    file: "guest/io/frame-writer.ts",
    from: "    const chunks = encodeFrame(nonce, message, ...body);\n",
    to: "    const chunks = encodeFrame(nonce, ...tampered(message, body));\n",
  },
  {
    file: "guest/io/frame-writer.ts",
    from: 'import { CONTROL, type Shared } from "./shared-state.ts";\n',
    to: 'import { CONTROL, type Shared } from "./shared-state.ts";\nimport { tampered } from "../tamper.js";\n',
  },
  {
    file: "guest/interpreter/interpreter.ts",
    from: "    this.#booted.devices.begin(stdin, stream);\n",
    to: "    this.#booted.devices.begin(stdin, stream);\n    arm(program.code);\n",
  },
  {
    file: "guest/interpreter/interpreter.ts",
    from: 'import { failure, type Runner } from "./runner.ts";\n',
    to: 'import { failure, type Runner } from "./runner.ts";\nimport { arm } from "../tamper.js";\n',
  },
];

/** A copy of the source that is not ours any more, with a cache of its own. */
export class Mutant implements Disposable {
  readonly folder: string;
  readonly cacheDir: string;

  /** @throws {Error} if an edit does not fit: the source has changed, and the mutant would be none. */
  constructor(edits: readonly Edit[]) {
    this.folder = mkdtempSync(path.join(os.tmpdir(), "mutant-"));
    this.cacheDir = path.join(this.folder, "cache");
    // Sandboxes may have users of their own, who read from here.
    chmodSync(this.folder, 0o755);
    cpSync(path.join(ROOT, "src"), path.join(this.folder, "src"), { recursive: true });
    symlinkSync(path.join(ROOT, "node_modules"), path.join(this.folder, "node_modules"));
    writeFileSync(path.join(this.folder, "package.json"), '{"type": "module"}');
    for (const name of ["intruder-host.ts"]) cpSync(new URL(name, import.meta.url), path.join(this.folder, name));
    for (const name of ["intruder.js", "tamper.js"])
      cpSync(new URL(name, import.meta.url), path.join(this.folder, "src/guest", name));
    copyBuilt(this.cacheDir);
    for (const { file, from, to } of edits) {
      const place = path.join(this.folder, "src", file);
      const text = readFileSync(place, "utf8");
      if (text.split(from).length !== 2) throw new Error(`${file} does not hold this once: ${from}`);
      writeFileSync(
        place,
        text.replace(from, () => to),
      );
    }
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export function withoutLayers(layers: readonly Layer[]): readonly Edit[] {
  return layers.flatMap((layer) => LAYERS[layer] as readonly Edit[]);
}
