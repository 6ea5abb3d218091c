import type { Exports, FileSystem, Module, Stream } from "./emscripten.ts";

interface StreamRecord {
  readonly stream: Stream;
  readonly flags: number;
  readonly position: number;
}

/**
 * What the JavaScript side of the interpreter looked like at the checkpoint.
 *
 * A rewind of the memory is sound only if this side is the same too. Plain data (open files, the working folder, counters)
 * is put back; anything else that differs means that the process must not be used again.
 */
export class JavaScriptState {
  readonly #module: Module;
  readonly #exports: Exports;
  readonly #fs: FileSystem;
  readonly #references: number;
  readonly #tableLength: number;
  readonly #freeSlots: string;
  readonly #libraries: string;
  readonly #stackPointer: number;
  readonly #streams: readonly (StreamRecord | null)[];
  readonly #nextInode: number;
  readonly #currentPath: string;

  constructor(module: Module, exports: Exports) {
    this.#module = module;
    this.#exports = exports;
    this.#fs = module.FS;
    this.#references = exports.hiwire_num_refs();
    this.#tableLength = module.wasmTable.length;
    this.#freeSlots = module.freeTableIndexes.join();
    this.#libraries = this.#listLibraries();
    this.#stackPointer = exports.__stack_pointer.value;
    this.#nextInode = this.#fs.nextInode;
    this.#currentPath = this.#fs.currentPath;
    this.#streams = Array.from(this.#fs.streams, (stream) =>
      stream ? { stream, flags: stream.flags, position: stream.position } : null,
    );
  }

  /** @returns why this side is not as it was; null: it is. */
  difference(): string | null {
    if (this.#exports.hiwire_num_refs() !== this.#references) return "JavaScript references";
    if (this.#module.wasmTable.length !== this.#tableLength) return "function table";
    if (this.#module.freeTableIndexes.join() !== this.#freeSlots) return "free slots of the function table";
    if (this.#listLibraries() !== this.#libraries) return "shared libraries";
    if (this.#exports.__stack_pointer.value !== this.#stackPointer) return "stack pointer";
    if (Object.keys(this.#module.timers).length > 0) return "pending timers";
    return null;
  }

  restore(): void {
    const fs = this.#fs;
    fs.streams.length = this.#streams.length;
    this.#streams.forEach((record, fd) => {
      if (record) {
        const { stream, flags, position } = record;
        stream.fd = fd;
        stream.shared = { flags, position };
      }
      fs.streams[fd] = record?.stream ?? null;
    });
    fs.nextInode = this.#nextInode;
    fs.currentPath = this.#currentPath;
    const names = this.#module.DNS.address_map;
    names.id = 1;
    names.addrs = {};
    names.names = {};
    this.#module.PIPEFS.nextname.current = 0;
    this.#module.SOCKFS.nextname.current = 0;
  }

  #listLibraries(): string {
    return Object.keys(this.#module.LDSO.loadedLibsByName).join("\n");
  }
}
