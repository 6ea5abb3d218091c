import type { FileMappings } from "../files/file-mappings.ts";
import { NameTable } from "../files/name-table.ts";
import { captureOpenFiles, type OpenFiles, reopen } from "../files/open-files.ts";
import { ACCESS_MODE, openStreams } from "../files/streams.ts";
import type { TenantFiles } from "../files/writable.ts";
import type { FileSystem, Module, Stream } from "../interpreter/emscripten.ts";
import type { Program } from "../interpreter/load.ts";
import { EmscriptenState } from "./emscripten-state.ts";
import type { OutsideMemory } from "./outside-memory.ts";

interface StreamRecord {
  readonly stream: Stream;
  /** Descriptors that share a position have this in common. */
  readonly shared: Stream["shared"];
  readonly flags: number;
  readonly position: number;
}

/**
 * What the JavaScript side of the interpreter looked like at the baseline.
 *
 * A rewind of the memory is sound only if this side is the same too. Plain data (open files, the working folder, counters)
 * is put back; anything else that differs means that the process must not be used again.
 */
export class JavaScriptState {
  readonly #changed: () => string | null;
  readonly #module: Module;
  readonly #outside: OutsideMemory;
  readonly #emscripten: EmscriptenState;
  readonly #fs: FileSystem;
  readonly #mappings: FileMappings;
  readonly #streams: ReadonlyMap<number, StreamRecord>;
  readonly #touched: Set<number>;
  readonly #nextInode: number;
  readonly #nameTable: NameTable;
  readonly #currentPath: string;

  /**
   * @param touched descriptors that were opened or closed.
   * @param changed the import that user code called, if one, which changes this side in ways that do not show here.
   */
  constructor(
    { module, mappings }: Program,
    outside: OutsideMemory,
    touched: Set<number>,
    changed: () => string | null,
  ) {
    this.#mappings = mappings;
    this.#changed = changed;
    this.#module = module;
    this.#outside = outside;
    this.#fs = module.FS;
    this.#nameTable = new NameTable(this.#fs);
    this.#emscripten = new EmscriptenState(module);
    this.#nextInode = this.#fs.nextInode;
    this.#touched = touched;
    touched.clear();
    this.#currentPath = this.#fs.currentPath;
    this.#streams = new Map(
      openStreams(this.#fs).map(([fd, stream]) => {
        const { shared, flags, position } = stream;
        return [fd, { stream, shared, flags, position }];
      }),
    );
  }

  /** @returns why a process in which this side is as at the baseline would not be as this one; null: it would. */
  differenceFromOthers(): string | null {
    return this.#outside.differsInVariables() ? "global variables of WebAssembly" : this.difference();
  }

  /** @returns why this side is not as it was, and cannot be put back; null: it is, or can. */
  difference(): string | null {
    const call = this.#changed();
    if (call !== null) return `a call of ${call}`;
    const difference = this.#outside.difference() ?? this.#emscripten.difference();
    if (difference !== null) return difference;
    if (Object.keys(this.#module.timers).length > 0) return "pending timers";
    return null;
  }

  /** Back to the baseline's. */
  restore(): void {
    this.#outside.restore();
    this.#emscripten.restore();
    const fs = this.#fs;
    this.#mappings.clear();
    for (const fd of this.#touched) fs.streams[fd] = null;
    this.#touched.clear();
    for (const [fd, { stream, shared, flags, position }] of this.#streams) {
      stream.fd = fd;
      stream.shared = shared;
      shared.flags = flags;
      shared.position = position;
      fs.streams[fd] = stream;
    }
    fs.nextInode = this.#nextInode;
    this.#nameTable.restore();
    fs.currentPath = this.#currentPath;
    const names = this.#module.DNS.address_map;
    names.id = 1;
    names.addrs = {};
    names.names = {};
    this.#module.PIPEFS.nextname.current = 0;
    this.#module.SOCKFS.nextname.current = 0;
  }

  /** Whether a file was opened to be written to since the baseline, and still is. */
  hasFilesToWrite(): boolean {
    for (const fd of this.#touched) {
      const stream = this.#fs.streams[fd];
      if (stream && (stream.flags & ACCESS_MODE) !== 0 && stream.node !== this.#streams.get(fd)?.stream.node)
        return true;
    }
    return false;
  }

  /** The open files, as another process can open them again. @throws {NotCapturable} if it could not. */
  captureFiles(tenant: TenantFiles): OpenFiles {
    return captureOpenFiles(this.#module, this.#mappings, tenant);
  }

  /** Opens a session's files again; what is open otherwise is forgotten. @throws if one is missing. */
  restoreFiles(files: OpenFiles, tenant: TenantFiles): void {
    const known = Array.from(this.#streams, ([fd, { stream }]) => [fd, stream] as const);
    this.#fs.streams.length = 0;
    reopen(this.#module, files, tenant, new Map(known), this.#mappings);
  }
}
