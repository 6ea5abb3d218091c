import {
  type Attributes,
  ERRNO,
  type FileSystem,
  type Node,
  type NodeOperations,
  type Stream,
  type StreamOperations,
} from "../interpreter/emscripten.ts";
import { attributesOf } from "./attributes.ts";
import type { FileMappings } from "./file-mappings.ts";
import { openStreams } from "./streams.ts";

export const FOLDER_MODE = 0o040755;
export const FILE_MODE = 0o100644;
export const LINK_MODE = 0o120777;
const MAX_NAME_CHARACTERS = 255;
const MAX_PATH_CHARACTERS = 4096;

export interface TenantNode extends Node {
  children: Map<string, TenantNode> | null;
  contents: Uint8Array;
  usedBytes: number;
  /** The workspace path whose content the host has and this node has not read yet. */
  unread: string | null;
  /** The workspace path this node's content came from, null once it was written to. */
  origin: string | null;
  /** Removed while it was open: its bytes count until it is closed. */
  orphan: boolean;
}

export const EMPTY = new Uint8Array(0);

/**
 * The files, folders and links that user code makes: a file system in memory with a quota. A file of the workspace is read from the
 * host when it is first opened.
 */
export class TenantNodes {
  readonly #fs: FileSystem;
  readonly #mappings: FileMappings;
  readonly #readContent: (path: string) => Uint8Array;
  readonly #folderOperations: NodeOperations;
  readonly #fileOperations: NodeOperations;
  readonly #linkOperations: NodeOperations;
  readonly #fileStreamOperations: StreamOperations;
  readonly #folderStreamOperations: StreamOperations;
  /** What was in the opened folders before. */
  readonly #kept = new Map<Node, ReadonlySet<string>>();
  #maxBytes = 0;
  #maxFiles = 0;
  #bytes = 0;
  #count = 0;

  /** @param readContent blocks until the host has sent a workspace file's content. */
  constructor(fs: FileSystem, mappings: FileMappings, readContent: (path: string) => Uint8Array) {
    this.#fs = fs;
    this.#mappings = mappings;
    mappings.load = (node) => this.loaded(node as TenantNode);
    mappings.onUnmap = (node) => this.#released(node as TenantNode);
    this.#readContent = readContent;
    const common: NodeOperations = {
      getattr: (node) => this.#attributes(node as TenantNode),
      setattr: (node, attributes) => this.#setAttributes(node as TenantNode, attributes),
    };
    this.#fileOperations = common;
    this.#linkOperations = { ...common, readlink: (node) => node.link as string };
    this.#folderOperations = {
      ...common,
      lookup: (parent, name) => {
        const child = (parent as TenantNode).children?.get(name);
        if (!child) throw new fs.ErrnoError(ERRNO.ENOENT);
        return child;
      },
      mknod: (parent, name, mode) => {
        if (!fs.isDir(mode) && !fs.isFile(mode)) throw new fs.ErrnoError(ERRNO.EPERM);
        return this.create(parent as TenantNode, name, mode);
      },
      symlink: (parent, name, target) => {
        if (target.length > MAX_PATH_CHARACTERS) throw new fs.ErrnoError(ERRNO.ENAMETOOLONG);
        return this.toLink(this.create(parent as TenantNode, name, LINK_MODE), target);
      },
      rename: (node, newParent, newName) => this.#rename(node as TenantNode, newParent as TenantNode, newName),
      unlink: (parent, name) => this.remove(parent as TenantNode, name),
      rmdir: (parent, name) => {
        if ((parent as TenantNode).children?.get(name)?.children?.size) throw new fs.ErrnoError(ERRNO.ENOTEMPTY);
        this.remove(parent as TenantNode, name);
      },
      readdir: (node) => [".", "..", ...((node as TenantNode).children?.keys() ?? [])],
    };
    const { mmap, llseek } = fs.filesystems.MEMFS.stream_ops;
    this.#folderStreamOperations = { llseek };
    this.#fileStreamOperations = {
      llseek,
      read: (stream, buffer, offset, length, position) => {
        const node = this.loaded(stream.node as TenantNode);
        mappings.sync(node, position, position + length);
        if (position >= node.usedBytes) return 0;
        const size = Math.min(node.usedBytes - position, length);
        buffer.set(node.contents.subarray(position, position + size), offset);
        return size;
      },
      write: (stream, buffer, offset, length, position) => {
        if (length === 0) return 0;
        const node = this.loaded(stream.node as TenantNode);
        mappings.sync(node, position, position + length);
        this.#write(node, buffer.subarray(offset, offset + length), position);
        mappings.refresh(node, position, position + length);
        return length;
      },
      mmap: (stream, ...rest) => {
        const node = this.loaded(stream.node as TenantNode);
        const exact = { ...stream, node: { mode: node.mode, contents: node.contents.slice(0, node.usedBytes) } };
        return mmap(exact as unknown as typeof stream, ...rest);
      },
      msync: (stream, buffer, offset, length) => {
        const node = stream.node as TenantNode;
        const end = Math.min(length, Math.max(0, node.usedBytes - offset));
        this.#write(node, buffer.subarray(0, end), offset);
        return end;
      },
      close: (stream) => this.#released(stream.node as TenantNode, stream),
    };
  }

  /** Sets the quota. The files that are listed next count toward it. */
  begin(maxBytes: number, maxFiles: number): void {
    this.#maxBytes = maxBytes;
    this.#maxFiles = maxFiles;
    this.#bytes = 0;
  }

  /** Forgets all nodes: nothing counts, and nothing can be made. */
  reset(): void {
    this.#maxBytes = this.#maxFiles = 0;
    this.#bytes = 0;
    this.#count = 0;
  }

  /** Lets user code make files and folders in a folder that is read-only, beside what is there. */
  open(node: Node): TenantNode {
    const folder = node as TenantNode;
    const made = new Map<string, TenantNode>();
    folder.children = made;
    folder.mode |= 0o200;
    const { getattr, lookup, readdir } = folder.node_ops as Required<NodeOperations>;
    const { mknod, symlink, rename, unlink, rmdir } = this.#folderOperations as Required<NodeOperations>;
    const attributes = { ...getattr(folder), mode: folder.mode };
    this.#kept.set(folder, new Set(readdir(folder)));
    const refuse = (): never => {
      throw new this.#fs.ErrnoError(ERRNO.EACCES);
    };
    folder.node_ops = {
      getattr: () => attributes,
      lookup: (parent, name) => made.get(name) ?? lookup(parent, name),
      readdir: (parent) => [...readdir(parent), ...made.keys()],
      mknod,
      symlink,
      rename,
      unlink: (parent, name) => (made.has(name) ? unlink(parent, name) : refuse()),
      rmdir: (parent, name) => (made.has(name) ? rmdir(parent, name) : refuse()),
    };
    return folder;
  }

  /** The folder that a writable root is. */
  createRoot(): TenantNode {
    const root = new this.#fs.FSNode(null, "/", FOLDER_MODE, 0) as TenantNode;
    this.#prepare(root, FOLDER_MODE);
    return root;
  }

  /** @param counted toward the quota's number of files: not what the host listed. */
  create(parent: TenantNode, name: string, mode: number, counted = true): TenantNode {
    if (counted && this.#count >= this.#maxFiles) throw new this.#fs.ErrnoError(ERRNO.ENOSPC);
    if (name.length > MAX_NAME_CHARACTERS) throw new this.#fs.ErrnoError(ERRNO.ENAMETOOLONG);
    // Not FS.createNode: its global table of names would have to be searched to forget these nodes again.
    const node = new this.#fs.FSNode(parent, name, mode, 0) as TenantNode;
    this.#prepare(node, mode);
    parent.children?.set(name, node);
    parent.mtime = parent.ctime = node.mtime;
    this.#count++;
    return node;
  }

  /** Makes a file or folder that is deleted already, to be opened. */
  createDeleted(parent: TenantNode, mode: number, content: Uint8Array, mtimeMs: number): TenantNode {
    const node = new this.#fs.FSNode(parent, "", mode, 0) as TenantNode;
    this.#prepare(node, mode);
    node.contents = content.slice();
    node.usedBytes = content.length;
    node.mtime = node.ctime = mtimeMs;
    node.orphan = true;
    this.#bytes += content.length;
    return node;
  }

  /** Has a node be a file whose content the host has. */
  expect(node: TenantNode, path: string, size: number): void {
    node.usedBytes = size;
    node.unread = node.origin = path;
    this.#bytes += size;
  }

  toLink(node: TenantNode, target: string): TenantNode {
    node.link = target;
    node.node_ops = this.#linkOperations;
    return node;
  }

  #prepare(node: TenantNode, mode: number): void {
    const folder = this.#fs.isDir(mode);
    node.children = folder ? new Map() : null;
    node.contents = EMPTY;
    node.usedBytes = 0;
    node.unread = node.origin = null;
    node.orphan = false;
    node.node_ops = folder ? this.#folderOperations : this.#fileOperations;
    node.stream_ops = folder ? this.#folderStreamOperations : this.#fileStreamOperations;
  }

  remove(parent: TenantNode, name: string): void {
    const node = parent.children?.get(name);
    if (!node) throw new this.#fs.ErrnoError(ERRNO.ENOENT);
    // The host forgets a deleted file's content; a descriptor that is open may be read on.
    if (node.unread !== null && this.#isOpen(node)) this.loaded(node);
    parent.children?.delete(name);
    parent.mtime = parent.ctime = Date.now();
    this.#count--;
    node.orphan = this.#isOpen(node);
    if (!node.orphan) this.#bytes -= node.usedBytes;
  }

  #isOpen(node: TenantNode, except?: Stream): boolean {
    return (
      openStreams(this.#fs).some(([, stream]) => stream !== except && stream.node === node) ||
      this.#mappings.isMapped(node)
    );
  }

  /** A descriptor or a mapping of it is gone, or about to go. */
  #released(node: TenantNode, stream?: Stream): void {
    if (!node.orphan || this.#isOpen(node, stream)) return;
    node.orphan = false;
    this.#bytes -= node.usedBytes;
  }

  #write(node: TenantNode, bytes: Uint8Array, position: number): void {
    this.#resize(node, Math.max(node.usedBytes, position + bytes.length));
    node.contents.set(bytes, position);
    this.#changed(node);
  }

  #rename(node: TenantNode, newParent: TenantNode, newName: string): void {
    if (!isOwn(node)) throw new this.#fs.ErrnoError(ERRNO.EACCES);
    const existing = newParent.children?.get(newName);
    if (this.#kept.get(newParent)?.has(newName)) throw new this.#fs.ErrnoError(ERRNO.EACCES);
    if (existing?.children?.size) throw new this.#fs.ErrnoError(ERRNO.ENOTEMPTY);
    if (existing) {
      this.#fs.hashRemoveNode(existing);
      this.remove(newParent, newName);
    }
    const oldParent = node.parent as TenantNode;
    oldParent.children?.delete(node.name);
    newParent.children?.set(newName, node);
    node.name = newName;
    oldParent.mtime = oldParent.ctime = newParent.mtime = newParent.ctime = Date.now();
  }

  /** The node, with its content read from the host if that has not been done. */
  loaded(node: TenantNode): TenantNode {
    if (node.unread === null) return node;
    let contents: Uint8Array;
    try {
      contents = this.#readContent(node.unread);
    } catch {
      throw new this.#fs.ErrnoError(ERRNO.EIO);
    }
    this.#bytes += contents.length - node.usedBytes;
    node.contents = contents;
    node.usedBytes = contents.length;
    node.unread = null;
    return node;
  }

  #resize(node: TenantNode, size: number): void {
    const growth = size - node.usedBytes;
    if (growth > 0 && this.#bytes + growth > this.#maxBytes) throw new this.#fs.ErrnoError(ERRNO.ENOSPC);
    if (size > node.contents.length) {
      // By a quarter once it is large, so that a file written in small pieces is copied a few times, not once for each.
      const { length } = node.contents;
      const capacity = Math.max(size, Math.min(length * 2, length + Math.max(1 << 20, length >> 2)));
      const grown = new Uint8Array(capacity);
      grown.set(node.contents.subarray(0, node.usedBytes));
      node.contents = grown;
    } else if (growth < 0) {
      node.contents.fill(0, size, node.usedBytes);
    }
    node.usedBytes = size;
    this.#bytes += growth;
  }

  #changed(node: TenantNode): void {
    node.origin = null;
    node.mtime = node.ctime = Date.now();
  }

  #attributes(node: TenantNode): Attributes {
    const size = node.children ? 4096 : this.#fs.isLink(node.mode) ? (node.link as string).length : node.usedBytes;
    const { atime, mtime, ctime } = node;
    return attributesOf(node, size, { atime: new Date(atime), mtime: new Date(mtime), ctime: new Date(ctime) });
  }

  #setAttributes(node: TenantNode, attributes: { mode?: number; size?: number; atime?: number; mtime?: number }): void {
    if (attributes.mode != null) node.mode = attributes.mode;
    if (attributes.atime != null) node.atime = Number(attributes.atime);
    if (attributes.mtime != null) node.mtime = Number(attributes.mtime);
    if (attributes.size != null) {
      this.loaded(node);
      this.#mappings.sync(node);
      this.#resize(node, attributes.size);
      this.#mappings.refresh(node);
      this.#changed(node);
    }
  }
}

/** Whether user code made it; else it is of the interpreter. */
function isOwn(node: TenantNode): boolean {
  return node.orphan !== undefined;
}
