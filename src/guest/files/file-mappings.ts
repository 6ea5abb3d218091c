import { ERRNO, type FileSystem, type Node, type Stream } from "../interpreter/emscripten.ts";
import { isStale } from "./stale-file.ts";

const PROT_WRITE = 2;
const MAP_PRIVATE = 2;

/** A part of the memory that is a part of a file. */
export interface FileMapping {
  readonly address: number;
  readonly length: number;
  /** Where in the file it begins. */
  readonly offset: number;
  readonly writable: boolean;
  readonly node: Node;
}

type Call = ((...parameters: never[]) => number) & { sig?: string };

/**
 * What `mmap` has mapped of files that can be written to.
 *
 * Emscripten copies a file's content into memory, and writes it back to whatever has the descriptor when it is unmapped: to another file where
 * that one was closed, as numpy's `memmap` does at once. Here a mapping knows its file. And since both are copies, each is brought up to
 * date with the other before and after the file is read, written to or cut, and when an execution ends.
 */
export class FileMappings {
  readonly #mappings = new Map<number, FileMapping>();
  #fs: FileSystem | null = null;
  #memory: WebAssembly.Memory | null = null;
  /** Makes sure that a file's content is here. */
  load: (node: Node) => void = () => {};
  /** Called when a file has one mapping less. */
  onUnmap: (node: Node) => void = () => {};

  /** Stands in for the imports with which the interpreter maps and unmaps. */
  wrap(imports: WebAssembly.ModuleImports): void {
    const map = imports._mmap_js as unknown as Call;
    const replace = (name: string, call: (...parameters: never[]) => number) => {
      imports[name] = Object.assign(call, { sig: (imports[name] as Call).sig });
    };
    replace(
      "_mmap_js",
      (
        length: number,
        protection: number,
        flags: number,
        fd: number,
        offset: bigint,
        allocated: number,
        result: number,
      ) => {
        const stream = this.#fs?.streams[fd];
        if (stream) this.sync(stream.node);
        const error = map(...([length, protection, flags, fd, offset, allocated, result] as never[]));
        if (error !== 0 || !stream || !this.#memory) return error;
        const address = new DataView(this.#memory.buffer).getUint32(result >>> 0, true);
        this.#mappings.delete(address);
        if ((flags & MAP_PRIVATE) === 0 && stream.node.stream_ops.msync) {
          const writable = (protection & PROT_WRITE) !== 0;
          this.add({ address, length: length >>> 0, offset: Number(offset), writable, node: stream.node });
        }
        return 0;
      },
    );
    replace("_msync_js", (address: number) => {
      const mapping = this.#mappings.get(address >>> 0);
      if (mapping && isStale(mapping.node)) return -ERRNO.ESTALE;
      if (mapping) this.sync(mapping.node);
      return 0;
    });
    replace("_munmap_js", (address: number) => {
      const mapping = this.#mappings.get(address >>> 0);
      if (mapping) {
        this.sync(mapping.node);
        this.#mappings.delete(mapping.address);
        this.onUnmap(mapping.node);
      }
      return 0;
    });
  }

  attach(fs: FileSystem, memory: WebAssembly.Memory): void {
    this.#fs = fs;
    this.#memory = memory;
  }

  add(mapping: FileMapping): void {
    this.#mappings.set(mapping.address, mapping);
  }

  list(): readonly FileMapping[] {
    return Array.from(this.#mappings.values());
  }

  isMapped(node: Node): boolean {
    return this.list().some((mapping) => mapping.node === node);
  }

  /** Forgets all: the memory has become another. */
  clear(): void {
    this.#mappings.clear();
  }

  /** Brings a file, or a part of it, up to date with its mappings, and these with each other. */
  sync(node: Node, from = 0, to = Number.POSITIVE_INFINITY): void {
    if (this.#mappings.size === 0 || !this.#memory) return;
    const mappings = this.list().filter((mapping) => mapping.node === node);
    if (mappings.length === 0) return;
    this.load(node);
    const heap = new Uint8Array(this.#memory.buffer);
    const before = contentOf(node).subarray(from, to);
    // All were equal to the file when it was last looked at: what differs now was written since.
    let after: Uint8Array | null = null;
    let first = before.length;
    let last = -1;
    for (const { address, length, offset, writable } of mappings) {
      if (!writable) continue;
      const end = Math.min(before.length, offset + length - from);
      const shift = address - offset + from;
      for (let at = Math.max(0, offset - from); at < end; at++) {
        if (heap[shift + at] === before[at]) continue;
        after ??= before.slice();
        after[at] = heap[shift + at] as number;
        if (at < first) first = at;
        if (at > last) last = at;
      }
    }
    if (after === null) return;
    const changed = after.subarray(first, last + 1);
    node.stream_ops.msync?.({ node } as Stream, changed, from + first, changed.length, 0);
    this.refresh(node, from + first, from + last + 1);
  }

  syncAll(): void {
    for (const node of new Set(this.list().map((mapping) => mapping.node))) this.sync(node);
  }

  /** Brings a file's mappings up to date with a part of it that was written to. */
  refresh(node: Node, from = 0, to = Number.POSITIVE_INFINITY): void {
    if (this.#mappings.size === 0 || !this.#memory) return;
    const heap = new Uint8Array(this.#memory.buffer);
    const content = contentOf(node);
    for (const mapping of this.#mappings.values()) {
      if (mapping.node !== node) continue;
      const start = Math.max(from, mapping.offset);
      const end = Math.min(to, content.length, mapping.offset + mapping.length);
      if (start < end) heap.set(content.subarray(start, end), mapping.address + start - mapping.offset);
    }
  }
}

function contentOf(node: Node): Uint8Array {
  return ((node.contents ?? new Uint8Array(0)) as Uint8Array).subarray(0, node.usedBytes ?? 0);
}
