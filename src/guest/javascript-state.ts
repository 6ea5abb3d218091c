import type { Exports, FileSystem, Module, Node, Stream } from "./emscripten.ts";
import type { TenantFiles } from "./filesystem.ts";
import { captureOpenFiles, type OpenFiles, reopen } from "./open-files.ts";

interface StreamRecord {
  readonly stream: Stream;
  /** Descriptors that share a position have this in common. */
  readonly shared: object;
  readonly flags: number;
  readonly position: number;
}

/** The table of the JavaScript objects that Python refers to; null and undefined where a place is free. */
export function references(module: Module): unknown[] {
  const values: unknown[] = [];
  for (;;) {
    try {
      values.push(module.__hiwire_get(values.length));
    } catch {
      // Past its end.
      return values;
    }
  }
}

/**
 * What the JavaScript side of the interpreter looked like at the checkpoint.
 *
 * A rewind of the memory is sound only if this side is the same too. Plain data (open files, the working folder, counters)
 * is put back; anything else that differs means that the process must not be used again.
 */
export class JavaScriptState {
  readonly #changed: () => string | null;
  readonly #module: Module;
  readonly #exports: Exports;
  readonly #fs: FileSystem;
  readonly #references: number;
  readonly #referenced: readonly unknown[];
  readonly #tableLength: number;
  readonly #freeSlots: string;
  readonly #libraries: string;
  readonly #stackPointer: number;
  readonly #streams: readonly (StreamRecord | null)[];
  readonly #nextInode: number;
  readonly #nameTable: readonly (Node | undefined)[];
  readonly #currentPath: string;

  /** @param changed the import that user code called, if one, which changes this side in ways that do not show here. */
  constructor(module: Module, exports: Exports, changed: () => string | null) {
    this.#changed = changed;
    this.#module = module;
    this.#exports = exports;
    this.#fs = module.FS;
    this.#references = exports.hiwire_num_refs();
    this.#referenced = references(module);
    this.#tableLength = module.wasmTable.length;
    this.#freeSlots = module.freeTableIndexes.join();
    this.#libraries = this.#listLibraries();
    this.#stackPointer = exports.__stack_pointer.value;
    this.#nextInode = this.#fs.nextInode;
    this.#nameTable = Array.from(this.#fs.nameTable);
    this.#currentPath = this.#fs.currentPath;
    this.#streams = Array.from(this.#fs.streams, (stream) =>
      stream ? { stream, shared: stream.shared, flags: stream.flags, position: stream.position } : null,
    );
  }

  /** @returns why this side is not as it was; null: it is. */
  difference(): string | null {
    const call = this.#changed();
    if (call !== null) return `a call of ${call}`;
    if (this.#exports.hiwire_num_refs() !== this.#references) return "JavaScript references";
    // Their number is kept in memory, which a rewind restores; what they refer to is not.
    const referenced = references(this.#module);
    if (referenced.length !== this.#referenced.length) return "JavaScript references";
    if (referenced.some((value, index) => value !== this.#referenced[index])) return "JavaScript references";
    if (this.#module.wasmTable.length !== this.#tableLength) return "function table";
    if (this.#module.freeTableIndexes.join() !== this.#freeSlots) return "free slots of the function table";
    if (this.#listLibraries() !== this.#libraries) return "shared libraries";
    if (this.#exports.__stack_pointer.value !== this.#stackPointer) return "stack pointer";
    if (Object.keys(this.#module.timers).length > 0) return "pending timers";
    return null;
  }

  /** Back to the checkpoint's. */
  restore(): void {
    const fs = this.#fs;
    fs.streams.length = this.#streams.length;
    const renewed = new Map<object, Stream["shared"]>();
    this.#streams.forEach((record, fd) => {
      if (record) {
        const { stream, shared, flags, position } = record;
        stream.fd = fd;
        stream.shared = renewed.get(shared) ?? { flags, position };
        renewed.set(shared, stream.shared);
      }
      fs.streams[fd] = record?.stream ?? null;
    });
    fs.nextInode = this.#nextInode;
    // Pipes and renamed files enter themselves at the heads of its chains. One left there would be found by the next
    // tenant: inode numbers repeat.
    this.#nameTable.forEach((node, hash) => {
      fs.nameTable[hash] = node;
    });
    fs.currentPath = this.#currentPath;
    const names = this.#module.DNS.address_map;
    names.id = 1;
    names.addrs = {};
    names.names = {};
    this.#module.PIPEFS.nextname.current = 0;
    this.#module.SOCKFS.nextname.current = 0;
  }

  /** The open files, as another process can open them again. @throws {NotCapturable} if it could not. */
  captureFiles(tenant: TenantFiles): OpenFiles {
    return captureOpenFiles(this.#module, tenant);
  }

  /** Opens a session's files again; what is open otherwise is forgotten. @throws if one is missing. */
  restoreFiles(files: OpenFiles, tenant: TenantFiles): void {
    const known = this.#streams.flatMap((record, fd) => (record ? [[fd, record.stream] as const] : []));
    this.#fs.streams.length = 0;
    reopen(this.#module, files, tenant, new Map(known));
  }

  #listLibraries(): string {
    return Object.keys(this.#module.LDSO.loadedLibsByName).join("\n");
  }
}
