import type { Archive, ArchiveEntry } from "../../wire/archive-format.ts";
import {
  type Attributes,
  ERRNO,
  type FileSystem,
  type Node,
  type NodeOperations,
  type StreamOperations,
} from "../interpreter/emscripten.ts";
import { attributesOf } from "./attributes.ts";

/** 1980-01-01, the earliest a zip can say. An archive's files have no time of their own. */
export const ARCHIVE_MTIME_MS = 315_532_800_000;

const FOLDER_MODE = 0o040555;
const FILE_MODE = 0o100444;

interface ArchiveNode extends Node {
  children: Map<string, ArchiveNode> | null;
  entry: ArchiveEntry | null;
}

/**
 * A package archive as a folder. Nothing in it can be changed: there is no operation that would.
 *
 * A file's bytes are read when it is, so mounting costs the index only.
 */
export class ArchiveFiles {
  readonly #fs: FileSystem;
  readonly #archive: Archive;
  readonly #mtimeMs: number;
  readonly #nodeOperations: NodeOperations;
  readonly #streamOperations: StreamOperations;

  /** @param mtimeMs given to every file: the archive has none, and all processes must agree. */
  constructor(fs: FileSystem, archive: Archive, mtimeMs: number) {
    this.#fs = fs;
    this.#archive = archive;
    this.#mtimeMs = mtimeMs;
    this.#nodeOperations = {
      getattr: (node) => this.#attributes(node as ArchiveNode),
      lookup: (parent, name) => {
        const child = (parent as ArchiveNode).children?.get(name);
        if (!child) throw new fs.ErrnoError(ERRNO.ENOENT);
        return child;
      },
      readdir: (node) => [".", "..", ...((node as ArchiveNode).children?.keys() ?? [])],
    };
    const { mmap, llseek } = fs.filesystems.MEMFS.stream_ops;
    this.#streamOperations = {
      llseek,
      read: (stream, buffer, offset, length, position) => {
        const bytes = this.#read((stream.node as ArchiveNode).entry, position, length);
        buffer.set(bytes, offset);
        return bytes.length;
      },
      mmap: (stream, ...rest) => {
        const contents = this.#read((stream.node as ArchiveNode).entry, 0, Number.MAX_SAFE_INTEGER);
        return mmap({ ...stream, node: { mode: FILE_MODE, contents } } as unknown as typeof stream, ...rest);
      },
    };
  }

  /** Puts the archive in place of what is mounted at `path`, a folder; returns a function that takes it away again. */
  mount(path: string): () => void {
    const mountpoint = this.#fs.lookupPath(path, { follow_mount: false }).node;
    const root = this.#node(null, "/", FOLDER_MODE, null);
    const before = mountpoint.mounted;
    const mount = { type: this, opts: {}, mountpoint: path, mounts: [], root };
    root.mount = mount;
    for (const entry of this.#archive.entries) this.#add(root, entry);
    mountpoint.mounted = mount;
    return () => {
      mountpoint.mounted = before;
    };
  }

  #add(root: ArchiveNode, entry: ArchiveEntry): void {
    const names = entry.path.split("/");
    const fileName = names.pop() as string;
    let folder = root;
    for (const name of names) {
      let next = folder.children?.get(name);
      if (!next) {
        next = this.#node(folder, name, FOLDER_MODE, null);
        folder.children?.set(name, next);
      }
      folder = next;
    }
    folder.children?.set(fileName, this.#node(folder, fileName, FILE_MODE, entry));
  }

  #node(parent: ArchiveNode | null, name: string, mode: number, entry: ArchiveEntry | null): ArchiveNode {
    const node = new this.#fs.FSNode(parent, name, mode, 0) as ArchiveNode;
    node.children = entry ? null : new Map();
    node.entry = entry;
    // Emscripten's `llseek` counts from the end by it.
    node.usedBytes = entry?.size ?? 0;
    node.node_ops = this.#nodeOperations;
    node.stream_ops = this.#streamOperations;
    return node;
  }

  #read(entry: ArchiveEntry | null, position: number, length: number): Uint8Array {
    if (!entry) throw new this.#fs.ErrnoError(ERRNO.EISDIR);
    try {
      return this.#archive.read(entry, position, length);
    } catch {
      throw new this.#fs.ErrnoError(ERRNO.EIO);
    }
  }

  #attributes(node: ArchiveNode): Attributes {
    const time = new Date(this.#mtimeMs);
    return attributesOf(node, node.entry?.size ?? 4096, { atime: time, mtime: time, ctime: time });
  }
}
