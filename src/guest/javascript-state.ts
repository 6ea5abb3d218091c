import type { OpenFile } from "../sandbox/protocol.ts";
import type { Exports, FileSystem, Module, Node, Stream } from "./emscripten.ts";
import { WRITABLE_ROOTS } from "./filesystem.ts";

interface StreamRecord {
  readonly stream: Stream;
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
      stream ? { stream, flags: stream.flags, position: stream.position } : null,
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
    this.#streams.forEach((record, fd) => {
      if (record) {
        const { stream, flags, position } = record;
        stream.fd = fd;
        stream.shared = { flags, position };
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
  captureStreams(): OpenFile[] {
    const fs = this.#fs;
    const groups = new Map<object, number>();
    const files: OpenFile[] = [];
    fs.streams.forEach((stream, fd) => {
      if (!stream) return;
      const { node, flags, position } = stream;
      const path = this.#pathOf(stream);
      if (path === null) throw new NotCapturable("an open pipe, or an open file that was deleted");
      if (fs.isFile(node.mode) && !WRITABLE_ROOTS.some((root) => path.startsWith(`${root}/`))) {
        throw new NotCapturable("an open file of a package");
      }
      if (fs.isDir(node.mode) && "getdents" in stream && stream.getdents) {
        throw new NotCapturable("a folder that is being listed");
      }
      const group = groups.get(stream.shared) ?? groups.size;
      groups.set(stream.shared, group);
      files.push({ fd, path, flags, position, group });
    });
    return files;
  }

  /** Opens a session's files again; what is open otherwise is forgotten. */
  restoreStreams(files: readonly OpenFile[]): void {
    const fs = this.#fs;
    const own = new Map(this.#streams.flatMap((record, fd) => (record ? [[fd, record.stream] as const] : [])));
    const groups = new Map<number, Stream["shared"]>();
    fs.streams.length = 0;
    for (const { fd, path, flags, position, group } of files) {
      const { node } = fs.lookupPath(path, { follow: false });
      const known = own.get(fd);
      const device = fs.isDir(node.mode) || fs.isFile(node.mode) ? null : fs.devices[node.rdev];
      const stream_ops = known && known.path === path ? known.stream_ops : (device?.stream_ops ?? node.stream_ops);
      const stream = fs.createStream(
        { node, path, seekable: device === null, stream_ops, ungotten: [], error: false },
        fd,
      );
      const shared = groups.get(group) ?? { flags, position };
      groups.set(group, shared);
      stream.shared = shared;
    }
  }

  #pathOf(stream: Stream): string | null {
    const fs = this.#fs;
    // A device keeps the path it was opened by: 0 and 1 share one node.
    const path = fs.isFile(stream.node.mode) || fs.isDir(stream.node.mode) ? fs.getPath(stream.node) : stream.path;
    try {
      return fs.lookupPath(path, { follow: false }).node === stream.node ? path : null;
    } catch {
      return null;
    }
  }

  #listLibraries(): string {
    return Object.keys(this.#module.LDSO.loadedLibsByName).join("\n");
  }
}

/** The session holds something that cannot be moved to another process; `message` says what. */
export class NotCapturable extends Error {
  override readonly name = "NotCapturable";
}
