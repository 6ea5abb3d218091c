import { isSealed } from "../../wire/import-rules.ts";

const PERMISSIONS = ["read", "write", "net", "env", "run", "sys", "ffi", "import"] as const;
const host = Deno;

/** Gives up, for good, every permission this thread was started with. */
export function revokePermissions(): void {
  for (const name of PERMISSIONS) {
    const status = host.permissions.revokeSync({ name } as Deno.PermissionDescriptor);
    if (status.state === "granted") throw new Error(`permission ${name} could not be revoked`);
  }
}

const KEPT_GLOBALS = new Set([
  ...["Object", "Function", "Array", "Number", "parseFloat", "parseInt", "Infinity", "NaN", "undefined", "Boolean"],
  ...["String", "Symbol", "Date", "Promise", "RegExp", "Error", "AggregateError", "EvalError", "RangeError"],
  ...[
    "ReferenceError",
    "SyntaxError",
    "TypeError",
    "URIError",
    "SuppressedError",
    "globalThis",
    "JSON",
    "Math",
    "Intl",
  ],
  ...["ArrayBuffer", "Atomics", "Uint8Array", "Int8Array", "Uint16Array", "Int16Array", "Uint32Array", "Int32Array"],
  ...["Float16Array", "Float32Array", "Float64Array", "Uint8ClampedArray", "BigUint64Array", "BigInt64Array"],
  ...["DataView", "Map", "BigInt", "Set", "Iterator", "WeakMap", "WeakSet", "WeakRef", "Proxy", "Reflect"],
  ...["FinalizationRegistry", "SharedArrayBuffer", "WebAssembly", "TextEncoder", "TextDecoder", "crypto", "Crypto"],
  ...["performance", "Performance", "decodeURI", "decodeURIComponent", "encodeURI", "encodeURIComponent", "isFinite"],
  ...["isNaN", "self", "WorkerGlobalScope", "escape", "unescape", "atob", "btoa", "AbortSignal", "AbortController"],
  ...["Event", "EventTarget"],
]);

/** Leaves nothing in the global object but the language and what the interpreter needs to run. */
export function closeRealm(): void {
  const realm = globalThis as Record<PropertyKey, unknown>;
  for (const name of Reflect.ownKeys(globalThis)) {
    // Keep symbol keys: Deno identifies the global object by one at exit.
    if (typeof name === "symbol" || KEPT_GLOBALS.has(name)) continue;
    try {
      if (!Reflect.deleteProperty(realm, name)) realm[name] = undefined;
    } catch {
      // Not configurable and not writable: a constant of the language.
    }
  }
}

/**
 * Makes all of the language that is left in the global object, and whatever can be reached from it, what it is for good: nothing that
 * happens later changes what an array's iterator is, or what every object inherits.
 */
export function freezeRealm(): void {
  const seen = new Set<object>([globalThis]);
  const pending: object[] = [];
  const add = (value: unknown) => {
    if ((typeof value !== "object" || value === null) && typeof value !== "function") return;
    if (seen.has(value)) return;
    seen.add(value);
    pending.push(value);
  };
  const keep = (target: object, key: PropertyKey) => {
    const { value, get, set } = Object.getOwnPropertyDescriptor(target, key) as PropertyDescriptor;
    for (const part of [value, get, set]) add(part);
  };
  for (const key of Reflect.ownKeys(globalThis)) if (typeof key === "string") keep(globalThis, key);
  for (const hidden of withoutNames()) add(hidden);
  for (let target = pending.pop(); target !== undefined; target = pending.pop()) {
    // The elements of a typed array cannot be frozen; none of these has any.
    Object.freeze(target);
    add(Object.getPrototypeOf(target));
    for (const key of Reflect.ownKeys(target)) keep(target, key);
  }
  for (const key of Reflect.ownKeys(globalThis)) {
    const { configurable, writable } = Object.getOwnPropertyDescriptor(globalThis, key) as PropertyDescriptor;
    if (typeof key === "symbol" || !configurable) continue;
    Object.defineProperty(globalThis, key, { configurable: false, ...(writable && { writable: false }) });
  }
}

/** Parts of the language that no name in the global object leads to. */
function withoutNames(): unknown[] {
  const text = "";
  const iterators = [[].values(), new Map().values(), new Set().values(), text[Symbol.iterator](), text.matchAll(/./g)];
  const functions = [async () => {}, function* () {}, async function* () {}];
  return [
    ...iterators,
    ...functions,
    Iterator.from({ next: () => ({ done: true, value: 0 }) }),
    [].values().map(Number),
  ];
}

/**
 * Imports that change what the JavaScript side keeps (function table, libraries, its own caches) in ways that leave its counts
 * as they were: a freed slot that is taken again still has the next tenant call the last one's function.
 */
const CHANGING_IMPORT =
  /^(ffi_closure_alloc_js|ffi_closure_free_js|ffi_prep_closure_loc_js|_setitimer_js|capture_stderr|restore_stderr|emscripten_set_up_async_input_device_js)$/;

const EACCES = 2;
const EAI_FAIL = -4;
/** What imports answer that would reach for the network. */
const NETWORK_ANSWERS: Readonly<Record<string, number>> = {
  ...Object.fromEntries(
    ["socket", "connect", "bind", "listen", "accept4", "sendto", "sendmsg", "recvfrom", "recvmsg"].map((call) => [
      `__syscall_${call}`,
      -EACCES,
    ]),
  ),
  getaddrinfo: EAI_FAIL,
  // Emscripten's allocates its table in linear memory once and keeps the addresses: after a rewind they point anywhere.
  getprotobyname: 0,
};

/** Stands between WebAssembly and its imports. */
export interface ImportSeal {
  /** @param needed names of all that the interpreter's own module imports. */
  wrap(imports: WebAssembly.Imports, needed: ReadonlySet<string>): void;
  /**
   * From now on a call to an import that reaches JavaScript ends the sandbox: booting needed it, nothing that user code may
   * do does. Shared libraries cannot be loaded any more: their code would be part of a state that no rewind undoes.
   */
  close(): void;
  /** Has the next library that is asked for be loaded although the seal is closed, and what `load` itself asks for no other. */
  loading<T>(load: () => T): T;
  /** The import, if one was called since `close`, after which a rewind of the memory is not enough; else null. */
  broken(): string | null;
  /** What Emscripten does when `malloc` needs room; false if there is none. */
  resizeHeap(bytes: number): boolean;
}

export function sealImports(): ImportSeal {
  let closed = false;
  let broken: string | null = null;
  let resizeHeap: (bytes: number) => boolean | number = () => false;
  let loading = false;
  return {
    broken: () => broken,
    wrap(imports, needed) {
      const env = imports.env as Record<string, unknown>;
      resizeHeap = env.emscripten_resize_heap as typeof resizeHeap;
      const dlopen = env._dlopen_js as (handle: number) => number;
      const dlopenOnce = (handle: number) => {
        if (closed && !loading) return 0;
        // A library's own code runs in there, and is not to load another.
        loading = false;
        return dlopen(handle);
      };
      env._dlopen_js = Object.assign(dlopenOnce, { sig: "pp" });
      // What is called like a member of every object is not one of these.
      Object.setPrototypeOf(env, null);
      for (const [name, original] of Object.entries(env)) {
        if (typeof original !== "function") continue;
        const call = original as ((...parameters: unknown[]) => unknown) & { sig?: string };
        const answer = NETWORK_ANSWERS[name];
        const replace = (replacement: (...parameters: unknown[]) => unknown) => {
          env[name] = Object.assign(replacement, { sig: call.sig });
        };
        if (answer !== undefined) {
          replace(() => answer);
        } else if (CHANGING_IMPORT.test(name)) {
          replace((...parameters) => {
            if (closed) broken ??= name;
            return call(...parameters);
          });
        } else if (isSealed(name, needed)) {
          replace((...parameters) => {
            if (!closed) return call(...parameters);
            // C++ that catches everything catches this too; what it goes on with is not used again.
            broken ??= name;
            throw new WebAssembly.RuntimeError(`sealed: ${name}`);
          });
        }
      }
    },
    close() {
      closed = true;
    },
    loading(load) {
      loading = true;
      try {
        return load();
      } finally {
        loading = false;
      }
    },
    resizeHeap: (bytes) => Boolean(resizeHeap(bytes)),
  };
}
