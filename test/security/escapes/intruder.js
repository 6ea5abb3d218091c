/**
 * An attacker's JavaScript inside a sandbox process, as if user code had come out of WebAssembly. `mutant.ts` puts it there.
 *
 * It holds on to everything that its thread offered when it began, before anything was revoked or closed: the strongest
 * position there is. What it finds by looking around later is the realm's own test.
 */
const { Deno: host, fetch, WebSocket, Worker, process: node } = globalThis;

function expect(holds) {
  if (!holds) throw new Error("nothing");
}

/** What reaches out of the process with what was there at the beginning. */
const reaching = {
  readSecret: ({ secretFile }) => host.readTextFileSync(secretFile),
  readPasswd: () => host.readTextFileSync("/etc/passwd"),
  readOwnSource: ({ visible }) => host.readTextFileSync(visible),
  listRoot: () => expect([...host.readDirSync("/")].some(({ name }) => name === "etc")),
  listProcesses: ({ serverPid }) =>
    expect([...host.readDirSync("/proc")].some(({ name }) => name === String(serverPid))),
  openServerMemory: ({ serverPid }) => host.openSync(`/proc/${serverPid}/mem`),
  openServerPipes: ({ serverPid }) => [...host.readDirSync(`/proc/${serverPid}/fd`)].length,
  openPeerMemory: ({ peerPid }) => host.openSync(`/proc/${peerPid}/mem`),
  readPeerMaps: ({ peerPid }) => host.readTextFileSync(`/proc/${peerPid}/maps`),
  openPeerPipes: ({ peerPid }) => host.openSync(`/proc/${peerPid}/fd/0`),
  writeFile: ({ marker }) => host.writeTextFileSync(marker, "x"),
  makeTemporaryFile: () => host.removeSync(host.makeTempFileSync()),
  connect: async ({ port }) => (await host.connect({ hostname: "127.0.0.1", port })).close(),
  fetch: async ({ port }) => (await fetch(`http://127.0.0.1:${port}/`)).text(),
  webSocket: ({ port }) =>
    new Promise((resolve, reject) => {
      const socket = new WebSocket(`ws://127.0.0.1:${port}/`);
      // A server that is no WebSocket's refuses it, once it was reached: the bait counts connections itself.
      socket.onopen = resolve;
      socket.onerror = () => reject(new Error("refused"));
    }),
  listen: () => host.listen({ port: 0, hostname: "127.0.0.1" }).close(),
  resolveDns: async () => await host.resolveDns("example.org", "A"),
  startProcess: () => new host.Command(host.execPath(), { args: ["--version"], stdin: "inherit" }).outputSync(),
  startShell: () => new host.Command("/bin/sh", { args: ["-c", "true"], stdin: "inherit" }).outputSync(),
  signalServer: ({ serverPid }) => host.kill(serverPid, "SIGUSR2"),
  signalPeer: ({ peerPid }) => host.kill(peerPid, "SIGUSR2"),
  readEnvironment: () => expect(host.env.get("PATH") ?? host.env.get("HOME") ?? node.env.PATH),
  hostName: () => expect(host.hostname() !== "sandbox"),
  networkInterfaces: () => expect(host.networkInterfaces().some(({ name }) => name !== "lo")),
  loadNative: () => host.dlopen("libc.so.6", { fork: { parameters: [], result: "i32" } }).close(),
  takeAddress: () => host.UnsafePointer.of(new Uint8Array(8)),
  readAddress: () => new host.UnsafePointerView(host.UnsafePointer.of(new Uint8Array(8))).getUint8(),
  makeCallback: () => new host.UnsafeCallback({ parameters: [], result: "void" }, () => {}).close(),
  importFile: async ({ visible }) => await import(`file://${visible}?again`),
  importHostFile: async ({ moduleFile }) => await import(`file://${moduleFile}`),
  importRemote: async ({ port }) => await import(`http://127.0.0.1:${port}/x.js`),
  importData: async ({ secretFile }) =>
    (await import(`data:text/javascript,export default Deno.readTextFileSync(${JSON.stringify(secretFile)})`)).default,
  nodeFs: async ({ secretFile }) => (await import("node:fs")).readFileSync(secretFile, "utf8"),
  nodeChildProcess: async () => (await import("node:child_process")).execSync("true"),
  nodeNet: async ({ port }) => {
    const { connect } = await import("node:net");
    await new Promise((resolve, reject) => connect(port, "127.0.0.1").on("connect", resolve).on("error", reject));
  },
  askPermission: async () => expect((await host.permissions.request({ name: "read" })).state === "granted"),
  workerWithPermissions: ({ secretFile }) =>
    new Promise((resolve, reject) => {
      const code = `try { Deno.readTextFileSync(${JSON.stringify(secretFile)}); postMessage(1) } catch { postMessage(0) }`;
      const worker = new Worker(`data:text/javascript,${encodeURIComponent(code)}`, { type: "module" });
      worker.onmessage = ({ data }) => (data ? resolve() : reject(new Error("refused")));
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(event.message));
      };
    }),
};

/** Names in a global object by which a thread reaches more than the language. */
const OFFERS = (
  "Deno process require Buffer fetch WebSocket Worker XMLHttpRequest EventSource BroadcastChannel MessageChannel caches " +
  "localStorage navigator location postMessage close setTimeout setInterval setImmediate importScripts " +
  "Request Response Headers Blob File URL ReadableStream CompressionStream console prompt alert onmessage Cache GPU"
).split(" ");

/** What can be reached with no more than the global object as it is now. */
const lookingAround = {
  ...Object.fromEntries(OFFERS.map((name) => [`offers ${name}`, () => expect(globalThis[name] !== undefined)])),
  "offers anything else": () => {
    const known = new Set([...OFFERS, ...Object.getOwnPropertyNames(globalThis).filter((name) => /^[A-Z]/.test(name))]);
    const language =
      /^(is|parse|decode|encode|escape|unescape|undefined|globalThis|self|crypto|performance|atob|btoa|queueMicrotask)/;
    const others = Object.getOwnPropertyNames(globalThis).filter((name) => !known.has(name) && !language.test(name));
    if (others.length === 0) throw new Error("nothing");
    return others;
  },
  "offers a function under a symbol": () => {
    const values = Object.getOwnPropertySymbols(globalThis).map((symbol) => globalThis[symbol]);
    const inside = values.flatMap((value) =>
      Object(value) === value ? Reflect.ownKeys(value).map((key) => value[key]) : [],
    );
    expect([...values, ...inside].some((value) => typeof value === "function"));
  },
};

const fromStrings = {
  // biome-ignore lint/security/noGlobalEval: it is what must not work.
  evaluates: () => expect(eval("1 + 1") === 2),
  constructsFunctions: () => expect(new Function("return 2")() === 2),
  constructsByConstructor: () => expect("".constructor.constructor("return 2")() === 2),
  constructsAsync: () => expect(Object.getPrototypeOf(async () => {}).constructor("return 2")),
  constructsGenerator: () =>
    expect(
      Object.getPrototypeOf(function* () {})
        .constructor("yield 2")()
        .next().value === 2,
    ),
  compilesWithTimer: () => expect(Reflect.construct(Function, ["return 2"])() === 2),
};

/** Bytes on the process's standard output that look like a frame. */
function forge({ won, protocolVersion }) {
  const encoder = new TextEncoder();
  const error = encoder.encode("null");
  const value = encoder.encode(JSON.stringify(won));
  const frame = (nonce, message, body) => {
    const header = encoder.encode(JSON.stringify(message));
    const bytes = new Uint8Array(12 + 32 + header.length + body.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, bytes.length - 4, true);
    view.setUint8(4, protocolVersion);
    view.setUint16(6, 32, true);
    view.setUint32(8, header.length, true);
    bytes.set(encoder.encode(nonce), 12);
    bytes.set(header, 44);
    bytes.set(body, 44 + header.length);
    return bytes;
  };
  const nothing = { stdoutBytes: 0, stderrBytes: 0, changesBytes: 0, truncated: false, crashed: false };
  const sizes = { errorBytes: error.length, valueBytes: value.length };
  const result = { type: "result", executionTimeMs: 1, ...sizes, ...nothing };
  host.stdout.writeSync(frame("0123456789abcdef".repeat(2), result, new Uint8Array([...error, ...value])));
}

/** What would outlive a visit in the objects of the language: no rewind puts them back. */
const CHANGED = {
  "Object.prototype": [Object.prototype, "toJSON"],
  "Array.prototype": [Array.prototype, Symbol.iterator],
  "array iterators": [Object.getPrototypeOf([].values()), "next"],
  "Map.prototype": [Map.prototype, "get"],
  "map iterators": [Object.getPrototypeOf(new Map().values()), "next"],
  "Set.prototype": [Set.prototype, "has"],
  "Promise.prototype": [Promise.prototype, "then"],
  "String.prototype": [String.prototype, "split"],
  "RegExp.prototype": [RegExp.prototype, "exec"],
  "Function.prototype": [Function.prototype, "call"],
  "async functions": [Object.getPrototypeOf(async () => {}), "constructor"],
  "Uint8Array.prototype": [Uint8Array.prototype, "set"],
  "typed arrays": [Object.getPrototypeOf(Uint8Array.prototype), "subarray"],
  "DataView.prototype": [DataView.prototype, "getUint32"],
  "Error.prototype": [Error.prototype, "message"],
  Error: [Error, "stackTraceLimit"],
  JSON: [JSON, "parse"],
  Math: [Math, "min"],
  Reflect: [Reflect, "ownKeys"],
  Atomics: [Atomics, "wait"],
  "WebAssembly.Instance.prototype": [WebAssembly.Instance.prototype, "exports"],
  "global names": [globalThis, "Array"],
};

const changing = Object.fromEntries(
  Object.entries(CHANGED).map(([name, [target, key]]) => [
    `changes ${name}`,
    () => {
      const before = Object.getOwnPropertyDescriptor(target, key);
      const isChanged = Reflect.defineProperty(target, key, { value: () => 1, configurable: true, writable: true });
      if (isChanged && before) Reflect.defineProperty(target, key, before);
      else if (isChanged) Reflect.deleteProperty(target, key);
      expect(isChanged);
    },
  ]),
);

const SUITES = { reaching, lookingAround, fromStrings, changing };

/** @returns `{attack: true}` for one that succeeded, else why not. */
export async function intrude(facts) {
  if (facts.suite === "forge") {
    forge(facts);
    await new Promise(() => {});
  }
  const outcome = {};
  for (const [name, attack] of Object.entries(SUITES[facts.suite])) {
    try {
      await attack(facts);
      outcome[name] = true;
    } catch (error) {
      outcome[name] = String(error?.message ?? error).slice(0, 100);
    }
  }
  return outcome;
}
