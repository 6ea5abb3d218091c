import type { Replacement } from "./mutant.ts";

const ADMIN = "(of) => (response) => ({ ...of(response), scopes: new Set([...of(response).scopes, 'admin']) })";
const AFTER_THE_FIRST =
  "(method) => { let isFirst = true; return function () { if (isFirst) method.call(this); isFirst = false; }; }";
const AUTHENTICATION = "../middleware/authentication.ts";

/** Each layer of the defence, and what replaces it in a copy of the source. `os` is a setting (ISOLATION=deno). */
export const LAYERS = {
  /** The language: no code from strings. */
  "code-generation": [
    {
      file: "sandbox/permissions.ts",
      exports: {
        v8Flags: "(flags) => (...about) => flags(...about).filter((flag) => !/code-generation/.test(flag))",
      },
    },
  ],
  /** Imports that reach JavaScript, and shared libraries. */
  seal: [
    {
      file: "guest/interpreter/realm.ts",
      exports: { sealImports: "(seal) => () => Object.assign(seal(), { close() {} })" },
    },
  ],
  /** Python's references to Pyodide's own JavaScript objects. */
  references: [
    {
      file: "guest/interpreter/tables.ts",
      exports: {
        adoptTables: `(adopt) => (header, program) => adopt(header, {
          ...program,
          module: new Proxy(program.module, {
            get: (module, name) => name === "__hiwire_set" ? (slot) => module.__hiwire_set(slot, globalThis) : module[name],
          }),
        })`,
      },
    },
  ],
  /** What the global object offers. */
  realm: [
    { file: "guest/interpreter/realm.ts", exports: { closeRealm: "() => () => {}", freezeRealm: "() => () => {}" } },
  ],
  /** What the global object offers is as it was, for each execution. */
  "frozen-realm": [{ file: "guest/interpreter/realm.ts", exports: { freezeRealm: "() => () => {}" } }],
  /** Deno's permissions: every one granted, none given up. */
  deno: [
    { file: "sandbox/permissions.ts", exports: { permissionFlags: '() => () => ["--allow-all"]' } },
    { file: "guest/interpreter/realm.ts", exports: { revokePermissions: "() => () => {}" } },
  ],
  /** Frames that the host has a nonce for. */
  nonce: [{ file: "sandbox/nonce.ts", exports: { isExpected: "() => (_nonce, expected) => expected !== null" } }],
  /** What a sandbox says is what it has to be. */
  "message-schema": [
    {
      file: "wire/guest-messages.ts",
      exports: { readGuestMessage: '() => (header) => JSON.parse(Buffer.from(header).toString("utf8"))' },
    },
  ],
  /** Nothing is parsed before it is bounded, or on the server's one thread. */
  "bounded-json": [
    {
      file: "http/body-limits.ts",
      exports: { MAX_INLINE_BYTES: "() => 2 ** 40", BODY_LIMITS: "() => ({ maxDepth: 2 ** 28, maxNodes: 2 ** 40 })" },
    },
    {
      file: "shared/json/json-text.ts",
      // Of the values of results alone: the others have limits of their own.
      methods: {
        "JsonText.checkInSlices": `(check) => async (bytes, limits) =>
          limits.maxDepth === 200 ? original.JsonText.of(JSON.parse(Buffer.from(bytes).toString()))
            : await check.call(original.JsonText, bytes, limits)`,
      },
    },
    {
      file: "shared/json/json-scanner.ts",
      exports: { scanJsonInSlices: "() => async (bytes, limits) => original.scanJson(bytes, limits)" },
    },
  ],
  /** Read-only standard library. */
  "read-only-files": [{ file: "guest/files/read-only.ts", exports: { freeze: "() => () => {}" } }],
  /** Memory as it was. */
  rewind: [{ file: "guest/memory/baseline.ts", methods: { "Baseline.restore": "() => () => 0" } }],
  /** What the system tells of the pages that were written to; left are those that it is tried out on. */
  "written-pages": [
    {
      file: "guest/memory/dirty-pages.ts",
      methods: {
        "DirtyPages.runs": `(runs) => {
          const known = new WeakMap();
          return function () {
            const all = runs.call(this);
            if (all.length < 2) return all;
            if (!known.has(all)) known.set(all, [all[0], all.at(-1)]);
            return known.get(all);
          };
        }`,
      },
    },
  ],
  /** An end that comes whatever the code does. */
  kill: [
    {
      file: "sandbox/limits.ts",
      exports: { KILL_GRACE_MS: "() => 2 ** 31 - 1", MAX_KILL_GRACE_MS: "() => 2 ** 31 - 1" },
    },
  ],
  /** What is printed goes to the host in frames, not as it is. */
  "framed-output": [
    {
      file: "guest/io/frame-writer.ts",
      methods: {
        "FrameWriter.print": `() => {
          const { stdout } = Deno;
          return (_stream, bytes) => {
            const copy = new Uint8Array(bytes);
            for (let at = 0; at < copy.length; ) at += stdout.writeSync(copy.subarray(at));
            return false;
          };
        }`,
      },
    },
  ],
  /** The host gives out a workspace's files by their names there. */
  "workspace-files": [
    {
      file: "wire/host-calls.ts",
      exports: {
        HOST_CALLS: '(calls) => ({ ...calls, "read-file": { safeParse: (data) => ({ success: true, data }) } })',
      },
    },
    {
      file: "sandbox/sandbox.ts",
      methods: {
        "Sandbox.execute": `(execute) => {
          const { readFileSync } = process.getBuiltinModule("node:fs");
          const answer = (argument) => {
            const path = String(argument);
            return { value: null, body: readFileSync(path.startsWith("file:") ? new URL(path) : path) };
          };
          return function (job) {
            return execute.call(this, { ...job, calls: () => ({ ...job.calls(), "read-file": { answer } }) });
          };
        }`,
      },
    },
  ],
  /** Addresses that no request may go to. What goes out then goes to the bait, whatever its address. */
  addresses: [
    { file: "egress/addresses.ts", exports: { isAllowedAddress: "() => (address) => Boolean(address)" } },
    {
      file: "egress/exchange.ts",
      imports: {
        undici: {
          Client: `(Client) => class extends Client {
            constructor(origin, options) {
              super(process.env.BAIT_ORIGIN ?? origin, options);
            }
          }`,
        },
      },
    },
  ],
  /** Hosts that are named in NETWORK_ALLOW, and no others. */
  "allow-list": [
    {
      file: "egress/allow-list.ts",
      methods: {
        "AllowList.allows": "(allows) => function (...about) { return !this.isEmpty || allows.apply(this, about); }",
      },
    },
  ],
  /** A connection goes to the addresses that were checked, not to what the name has by then. */
  pinning: [
    {
      file: "egress/exchange.ts",
      imports: {
        undici: {
          Client: `(Client) => class extends Client {
            constructor(origin, { connect: { lookup, ...connect }, ...options }) {
              super(origin, { ...options, connect });
            }
          }`,
        },
      },
    },
  ],
  /** An execution that waits is its principal's. */
  "own-execution": [{ file: "tools/execution-id.ts", exports: { belongsTo: "() => () => true" } }],
  /** URLs that answer calls are those that the operator has named. */
  "tool-endpoints": [
    {
      file: "tools/webhook.ts",
      exports: {
        ToolEndpoints: `(Endpoints) => class extends Endpoints {
          client(url, principal) {
            try { return super.client(url, principal); }
            catch { return new Endpoints({ urls: [url], secret: "0123456789abcdef", allowPrivate: true }).client(url, principal); }
          }
        }`,
      },
    },
  ],
  /** What waits for a client holds no more than its share of the sandboxes. */
  "tool-shares": [
    {
      file: "compose/principals.ts",
      exports: { toolShares: "() => () => ({ maxExecutions: 1000, maxOfPrincipal: 1000 })" },
    },
  ],
  /** New seeds for each execution. */
  reseed: [
    {
      file: "sandbox/sandbox.ts",
      methods: {
        "Sandbox.execute": `(execute) => function (job) {
          const { message } = job;
          const program = { ...message.program, reseed: false };
          return execute.call(this, { ...job, message: { ...message, program } });
        }`,
      },
    },
  ],
  /** Random bytes that are. */
  entropy: [
    {
      file: "guest/interpreter/clock.ts",
      methods: {
        "Clock.install": `(install) => function () {
          install.call(this);
          crypto.getRandomValues = (view) => (new Uint8Array(view.buffer, view.byteOffset, view.byteLength).fill(7), view);
        }`,
      },
    },
  ],
  /** Folders as they were. The first time is the boot's. */
  "file-reset": [{ file: "guest/files/writable.ts", methods: { "TenantFiles.reset": AFTER_THE_FIRST } }],
  /** Open files, counters of the file system: plain data, which is put back. */
  "javascript-reset": [
    { file: "guest/memory/javascript-state.ts", methods: { "JavaScriptState.restore": "() => () => {}" } },
  ],
  /** No clock of user code's is finer than what browsers give. */
  "clock-resolution": [{ file: "guest/interpreter/clock-resolution.ts", exports: { RESOLUTION_MS: "() => 0.001" } }],
  /** What a principal is shown is its own. */
  "own-view": [
    {
      file: "http/routes.ts",
      imports: {
        "./middleware/authentication.ts": {
          principalOf: `(of) => (response) => {
            const { id, scopes } = of(response);
            const isAlices = /^\\/api\\/(?:sessions|files|uploaded-files|pyodide-files|file-info|extract-plots|plots|clear-all-files)/;
            return { id: isAlices.test(response.req.path) ? "alice" : id, name: id, scopes: new Set([...scopes, "admin"]) };
          }`,
          requireScope: `(require) => (scope) =>
            scope === "stats" || scope === "admin" ? (_request, _response, next) => next() : require(scope)`,
        },
      },
    },
    { file: "http/resources/statistics.ts", imports: { [AUTHENTICATION]: { principalOf: ADMIN } } },
    {
      file: "http/middleware/rate-limit.ts",
      imports: { "./authentication.ts": { principalOf: "(of) => (response) => ({ ...of(response), id: '' })" } },
    },
  ],
  /** What libraries of packages may have and ask for. */
  "library-check": [{ file: "packages/library-check.ts", exports: { findUnsafeInThread: "() => async () => ({})" } }],
  /** The walls stand before a library is loaded. */
  "walls-first": [
    {
      file: "guest/interpreter/walls.ts",
      exports: {
        raiseWalls: "(raise) => (imports) => { globalThis[Symbol.for('walls')] = () => raise(imports); }",
      },
    },
    {
      // It is made when the libraries are loaded; where images are built, it never is.
      file: "guest/interpreter/runner.ts",
      exports: {
        Runner: `(Runner) => class extends Runner {
          constructor(...about) {
            super(...about);
            globalThis[Symbol.for("walls")]();
          }
        }`,
      },
    },
  ],
  /** An image is booted once before it counts. */
  "try-out": [{ file: "environments/try-image.ts", exports: { tryImage: "() => async () => {}" } }],
  /** Global variables of WebAssembly's. The first time is the boot's. */
  "outside-memory": [{ file: "guest/memory/outside-memory.ts", methods: { "OutsideMemory.restore": AFTER_THE_FIRST } }],
  /** What one client can make grow or repeat is bounded. */
  "client-limits": [
    {
      file: "http/middleware/key-guesses.ts",
      exports: {
        KeyGuesses:
          "(KeyGuesses) => class extends KeyGuesses { constructor(options) { super({ ...options, maxFailures: 0 }); } }",
      },
    },
    {
      file: "security-log/folded-events.ts",
      methods: {
        "FoldedEvents.add": "(add) => function (event, key, burst) { return add.call(this, event, key, burst * 1e9); }",
      },
    },
    { file: "security-log/limits.ts", exports: { MAX_FIELD_BYTES: "() => 1e6" } },
    {
      file: "security-log/security-log.ts",
      exports: {
        SecurityLog: `(SecurityLog) => class extends SecurityLog {
          constructor(options) { super({ ...options, maxTotalBytes: Number.POSITIVE_INFINITY }); }
        }`,
      },
    },
    {
      file: "http/resources/stats-stream.ts",
      exports: { streamStatistics: "(stream) => (options) => stream({ ...options, maxStreams: 100 })" },
    },
    {
      file: "http/middleware/connection-limit.ts",
      exports: {
        limitConnections:
          "(limit) => (server, options) => limit(server, { ...options, maxOfNetwork: options.maxOfNetwork * 2 })",
      },
    },
    // What no client waits for stays in line, with all that it holds.
    {
      file: "sessions/turn-queue.ts",
      text: [['signal?.addEventListener("abort", giveUp, { once: true });', ""]],
    },
    {
      file: "http/middleware/held-requests.ts",
      exports: {
        limitHeldRequests: "(limit) => (options) => limit({ ...options, maxRequests: 1e9, maxBytes: 2 ** 39 })",
      },
    },
  ],
  /** Equal contents of two principals are two. */
  "own-contents": [
    {
      file: "sessions/statements.ts",
      exports: {
        STATEMENTS: "(all) => ({ ...all, findContent: 'SELECT id FROM contents WHERE owner > 0 * ? AND sha256 = ?' })",
      },
    },
  ],
  /** No principal's part of the session store is another's. */
  shares: [
    {
      file: "sessions/shares.ts",
      exports: {
        sharesOf:
          "(of) => (maxBytes, ...rest) => ({ ...of(maxBytes, ...rest), maxBytesOfPrincipal: maxBytes, guaranteedBytes: 0 })",
      },
    },
  ],
  /** JavaScript's side as it was, or the process is not used again. */
  "state-check": [
    { file: "guest/memory/javascript-state.ts", methods: { "JavaScriptState.difference": "() => () => null" } },
  ],
} as const satisfies Readonly<Record<string, readonly Replacement[]>>;

export type Layer = keyof typeof LAYERS;

export function withoutLayers(layers: readonly Layer[]): readonly Replacement[] {
  return layers.flatMap((layer) => LAYERS[layer] as readonly Replacement[]);
}

/** Runs `intruder.js` in the interpreter's thread, when a first execution comes, in place of the interpreter. */
const INTRUDER_IN_MAIN: readonly Replacement[] = [
  {
    file: "guest/interpreter/tasks.ts",
    prelude: 'import { intrude } from "../intruder.js";',
    exports: {
      // Other code than a visit's is the image cache's own, which compiles by it.
      performTasks: `(perform) => async (interpreter, host, memory) => {
        let visit = null;
        const nextTask = () => {
          const task = host.nextTask();
          if (task?.message.type !== "execute") return task;
          const { code } = task.message.program;
          if (!code.startsWith('{"suite"')) return task;
          visit = JSON.parse(code);
          return null;
        };
        perform(interpreter, { nextTask, report: (message) => host.report(message) }, memory);
        if (visit === null) return;
        const outcome = await intrude(visit);
        host.announce({ type: "fatal", reason: \`INTRUDER\${JSON.stringify(outcome)}\` });
      }`,
    },
  },
];

/** The same in the other thread. Its file is where the thread begins and exports nothing, so that its text is changed. */
const INTRUDER_IN_WATCHER: readonly Replacement[] = [
  {
    file: "guest/io/watcher.ts",
    prelude: 'import { intrude } from "../intruder.js";',
    text: [
      [
        "      this.#ring.write(head);\n      this.#input.pass(left, (bytes) => this.#ring.write(bytes));\n",
        `      const rest = this.#input.take(left) as Uint8Array;
      const headerBytes = new DataView(head.buffer).getUint32(8, true);
      const { type, program } = JSON.parse(decoder.decode(rest.subarray(0, headerBytes)));
      if (type === "execute" && program.code.startsWith('{"suite"')) {
        const outcome = await intrude(JSON.parse(program.code));
        this.#writer.send(nonce, { type: "fatal", reason: \`INTRUDER\${JSON.stringify(outcome)}\` });
      }
      this.#ring.write(head);
      this.#ring.write(rest);
`,
      ],
      ["  watch(): void {", "  async watch(): Promise<void> {"],
      ["new Watcher(data).watch();", "await new Watcher(data).watch();"],
    ],
  },
];

export const INTRUDER: Readonly<Record<"main" | "watcher", readonly Replacement[]>> = {
  main: INTRUDER_IN_MAIN,
  watcher: INTRUDER_IN_WATCHER,
};

/**
 * What the process says is changed on its way out, by `tamper.js`: as the code that runs asks in its first line, `#TAMPER {…}`,
 * and for the message `ready` as a file beside the source does.
 */
export const TAMPERING: readonly Replacement[] = [
  {
    file: "guest/io/frame-writer.ts",
    prelude: 'import { tampered } from "../tamper.js";',
    imports: {
      "../../wire/frames.ts": {
        encodeFrame: "(encode) => (nonce, message, ...body) => encode(nonce, ...tampered(message, body))",
      },
    },
  },
  {
    file: "guest/interpreter/interpreter.ts",
    prelude: 'import { arm } from "../tamper.js";',
    methods: {
      "Interpreter.perform": `(perform) => function (message, body) {
        if (message.type === "execute") arm(message.program.code);
        return perform.call(this, message, body);
      }`,
    },
  },
];
