import type { Module } from "../interpreter/emscripten.ts";

/**
 * Objects of Emscripten's that change while code runs, and what becomes of each at a rewind. `restored`: `JavaScriptState` puts it back.
 * `compared`: it finds out what differs. `cleared`: done here. Views of the memory follow its growth.
 */
const CHANGING: Readonly<Record<string, "restored" | "compared" | "cleared" | "view">> = {
  DNS: "restored",
  FS: "restored",
  freeTableIndexes: "compared",
  timers: "compared",
  // A cache of what is in the function table, which is compared.
  wasmTableMirror: "compared",
  SYSCALLS: "cleared",
  UNWIND_CACHE: "cleared",
  ...Object.fromEntries(
    ["8", "16", "32", "64", "U8", "U16", "U32", "U64", "F32", "F64"].map((kind) => [`HEAP${kind}`, "view" as const]),
  ),
};

type Member = readonly [name: string, value: unknown];

/** Members of `FS` that change: `JavaScriptState` puts them back. */
const CHANGING_FS = new Set(["nextInode", "currentPath"]);

/**
 * What Emscripten keeps in JavaScript objects that can be reached from its module. All of it is frozen, down to the last table of constants,
 * but for what is listed above: an object that a later version brings is constant unless it is added there.
 */
export class EmscriptenState {
  readonly #module: Module;
  readonly #fs: readonly Member[];

  /** Freezes. Nothing of the module is set up after that. */
  constructor(module: Module) {
    this.#module = module;
    // Thousands of addresses, which no code of WebAssembly sets (`library-check.ts`).
    Object.freeze(module.GOT);
    // There are thousands of members: no list of them is made.
    for (const name in module) {
      const value = module[name];
      if (typeof value !== "object" || value === null) continue;
      if (CHANGING[name] === "view") makeAccessor(module, name);
      else if (CHANGING[name] === undefined) freezeDeep(value);
    }
    Object.freeze(module);
    this.#fs = Object.entries(module.FS).filter(([name]) => !CHANGING_FS.has(name));
  }

  /** @returns what differs and is not put back; null: nothing. */
  difference(): string | null {
    const fs = this.#module.FS as unknown as Record<string, unknown>;
    for (let at = 0; at < this.#fs.length; at++) {
      const member = this.#fs[at] as Member;
      if (fs[member[0]] !== member[1]) return `the file system's ${member[0]}`;
    }
    return null;
  }

  restore(): void {
    const { SYSCALLS, UNWIND_CACHE } = this.#module as unknown as Record<string, Record<string, unknown>>;
    if (SYSCALLS) SYSCALLS.varargs = undefined;
    for (const name in UNWIND_CACHE) delete UNWIND_CACHE[name];
  }
}

/** Keeps a member's value aside, so that it can be set though its object is frozen. */
function makeAccessor(module: Module, name: string): void {
  let current = module[name];
  Object.defineProperty(module, name, {
    get: () => current,
    set: (value) => {
      current = value;
    },
    enumerable: true,
  });
}

/** An object of the language's own kinds, and those in it. What has a class of its own looks after itself. */
function freezeDeep(value: object): void {
  if (Object.isFrozen(value)) return;
  const prototype = Object.getPrototypeOf(value);
  const isPlain = prototype === Object.prototype || prototype === Array.prototype || prototype === null;
  if (!isPlain) return;
  Object.freeze(value);
  for (const name in value) {
    const member = (value as Record<string, unknown>)[name];
    if (typeof member === "object" && member !== null) freezeDeep(member);
  }
}
