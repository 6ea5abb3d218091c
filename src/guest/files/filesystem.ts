import type { FileChanges } from "../../wire/guest-messages.ts";
import type { FileEntry, FileListing } from "../../wire/messages.ts";
import {
  ERRNO,
  type FileSystem,
  type Module,
  type Node,
  type NodeOperations,
  type Stream,
  type StreamOperations,
} from "../interpreter/emscripten.ts";
import type { FileMappings } from "./file-mappings.ts";
import { openStreams } from "./streams.ts";

/** The folders whose files are kept: for a workspace or a session, or for one execution. */
export const WRITABLE_ROOTS = ["/home/pyodide", "/tmp", "/plots"] as const;
/** The folders in which user code can make others, and files, that are there until the execution ends. What was in them stays read-only. */
export const OPEN_FOLDERS = ["/", "/home", "/home/web_user", "/mnt"] as const;
/** Where other systems of this kind have the files that go in and out: the home folder. */
export const HOME_LINK = "/mnt/data";
const HOME = "/home/pyodide";
const ALWAYS_PRESENT = ["/plots/matplotlib", "/plots/seaborn"];

const FOLDER_MODE = 0o040755;
const FILE_MODE = 0o100644;
const LINK_MODE = 0o120777;
const MAX_NAME_CHARACTERS = 255;
const MAX_PATH_CHARACTERS = 4096;
/** As on Linux. */
const MAX_PIPE_BYTES = 64 * 1024;

interface TenantNode extends Node {
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

/**
 * Makes everything that exists in the interpreter's file system read-only, for good: `chmod` fails too.
 *
 * A module poisoned on disk would outlive a rewind, which restores memory only.
 *
 * @param timeMs what every file and folder gives as its times. The real ones would tell sandboxes apart, and those of a device
 *   when it was last used, and by whom.
 */
export function freeze(fs: FileSystem, timeMs: number): void {
  const seen = new Set<Node>();
  const visit = (node: Node) => {
    if (seen.has(node)) return;
    seen.add(node);
    const isFolder = fs.isDir(node.mode);
    if (isFolder || fs.isFile(node.mode)) node.mode &= ~0o222;
    node.node_ops = readOnlyNodeOperations(node, new Date(timeMs));
    if (!isFolder) {
      if (fs.isFile(node.mode)) {
        const { write: _, msync: __, ...readOnly } = node.stream_ops;
        node.stream_ops = readOnly;
      }
      return;
    }
    if (node.contents) for (const child of Object.values(node.contents as Record<string, Node>)) visit(child);
    if (node.mounted) visit(node.mounted.root);
  };
  visit(fs.root);
}

/**
 * Bounds what Emscripten keeps without a limit, in JavaScript's memory, which no limit on WebAssembly covers: what lies in a
 * pipe (one that is full refuses to take more, as a non-blocking one does), and descriptors that `fcntl` duplicates.
 */
export function boundStreams({ FS: fs, PIPEFS: pipes }: Module): void {
  const { createStream } = fs;
  fs.createStream = (stream, fd) => {
    if (fd >= fs.MAX_OPEN_FDS) throw new fs.ErrnoError(ERRNO.EMFILE);
    return createStream.call(fs, stream, fd);
  };
  const { write } = pipes.stream_ops;
  pipes.stream_ops.write = (stream, buffer, offset, length, position) => {
    const { pipe } = stream.node as unknown as { pipe: { buckets: { offset: number; roffset: number }[] } };
    const room = MAX_PIPE_BYTES - pipe.buckets.reduce((sum, bucket) => sum + bucket.offset - bucket.roffset, 0);
    if (room <= 0 && length > 0) throw new fs.ErrnoError(ERRNO.EAGAIN);
    return write(stream, buffer, offset, Math.min(room, length), position);
  };
}

function readOnlyNodeOperations(node: Node, time: Date): NodeOperations {
  const { getattr, lookup, readdir, readlink } = node.node_ops;
  const attributes = getattr && { ...getattr(node), atime: time, mtime: time, ctime: time };
  return {
    ...(attributes && { getattr: () => attributes }),
    ...(lookup && { lookup }),
    ...(readdir && { readdir }),
    ...(readlink && { readlink }),
  };
}

/**
 * The folders user code can write to: a file system in memory with a quota, whose files are read from the host when they are
 * first opened, and which can say afterwards what an execution changed.
 */
export class TenantFiles {
  readonly #fs: FileSystem;
  readonly #mappings: FileMappings;
  readonly #readContent: (path: string) => Uint8Array;
  readonly #mountpoints: readonly Node[];
  readonly #firstInode: number;
  readonly #folderOperations: NodeOperations;
  readonly #fileOperations: NodeOperations;
  readonly #linkOperations: NodeOperations;
  readonly #fileStreamOperations: StreamOperations;
  readonly #folderStreamOperations: StreamOperations;
  readonly #openFolders: readonly TenantNode[];
  /** What was in them before. */
  readonly #kept = new Map<Node, ReadonlySet<string>>();
  #roots: TenantNode[] = [];
  #before: ReadonlyMap<string, FileEntry> = new Map();
  #maxBytes = 0;
  #maxFiles = 0;
  #bytes = 0;
  #count = 0;

  /**
   * @param fs has the `WRITABLE_ROOTS` as folders already; `freeze` it first.
   * @param readContent blocks until the host has sent a workspace file's content.
   */
  constructor(fs: FileSystem, mappings: FileMappings, readContent: (path: string) => Uint8Array) {
    this.#fs = fs;
    this.#mappings = mappings;
    mappings.load = (node) => this.#loaded(node as TenantNode);
    mappings.onUnmap = (node) => this.#released(node as TenantNode);
    this.#readContent = readContent;
    this.#firstInode = fs.nextInode;
    this.#mountpoints = WRITABLE_ROOTS.map((root) => fs.lookupPath(root, { follow_mount: false }).node);
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
        return this.#create(parent as TenantNode, name, mode);
      },
      symlink: (parent, name, target) => {
        if (target.length > MAX_PATH_CHARACTERS) throw new fs.ErrnoError(ERRNO.ENAMETOOLONG);
        const node = this.#create(parent as TenantNode, name, LINK_MODE);
        node.link = target;
        node.node_ops = this.#linkOperations;
        return node;
      },
      rename: (node, newParent, newName) => this.#rename(node as TenantNode, newParent as TenantNode, newName),
      unlink: (parent, name) => this.#remove(parent as TenantNode, name),
      rmdir: (parent, name) => {
        if ((parent as TenantNode).children?.get(name)?.children?.size) throw new fs.ErrnoError(ERRNO.ENOTEMPTY);
        this.#remove(parent as TenantNode, name);
      },
      readdir: (node) => [".", "..", ...((node as TenantNode).children?.keys() ?? [])],
    };
    const { mmap, llseek } = fs.filesystems.MEMFS.stream_ops;
    this.#folderStreamOperations = { llseek };
    this.#fileStreamOperations = {
      llseek,
      read: (stream, buffer, offset, length, position) => {
        const node = this.#loaded(stream.node as TenantNode);
        mappings.sync(node, position, position + length);
        if (position >= node.usedBytes) return 0;
        const size = Math.min(node.usedBytes - position, length);
        buffer.set(node.contents.subarray(position, position + size), offset);
        return size;
      },
      write: (stream, buffer, offset, length, position) => {
        if (length === 0) return 0;
        const node = this.#loaded(stream.node as TenantNode);
        mappings.sync(node, position, position + length);
        this.#write(node, buffer.subarray(offset, offset + length), position);
        mappings.refresh(node, position, position + length);
        return length;
      },
      mmap: (stream, ...rest) => {
        const node = this.#loaded(stream.node as TenantNode);
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
    this.#openFolders = OPEN_FOLDERS.map((path) => this.#open(fs.lookupPath(path).node));
    this.reset();
  }

  /** Fills the folders for an execution or a session; null: there is nothing to keep, and little room. */
  begin(listing: FileListing | null): void {
    const { entries, maxBytes, maxFiles } = listing ?? NO_FILES;
    this.#maxBytes = maxBytes;
    this.#maxFiles = maxFiles;
    this.#bytes = 0;
    const now = Date.now();
    for (const root of this.#roots) root.mtime = root.ctime = root.atime = now;
    for (const entry of entries) {
      const node = this.#at(entry.path, entry.kind === "folder" ? FOLDER_MODE : FILE_MODE);
      if (!node) continue;
      node.mtime = node.ctime = node.atime = entry.mtimeMs;
      if (entry.kind === "file") {
        node.usedBytes = entry.size;
        node.unread = node.origin = entry.path;
        this.#bytes += entry.size;
      }
    }
    for (const path of ALWAYS_PRESENT) this.#at(path, FOLDER_MODE);
    this.#before = new Map(entries.map((entry) => [entry.path, entry]));
  }

  /** What differs from what `begin` was given. Symbolic links are not kept: the workspace outside has none. */
  changes(): { changes: FileChanges; contents: Uint8Array[] } {
    this.#mappings.syncAll();
    const written: FileEntry[] = [];
    const contents: Uint8Array[] = [];
    const present = new Set<string>();
    this.#visit((node, path) => {
      if (this.#fs.isLink(node.mode)) return;
      present.add(path);
      const before = this.#before.get(path);
      if (node.children) {
        if (before?.kind === "folder" || isRoot(path) || ALWAYS_PRESENT.includes(path)) return;
        written.push({ path, size: 0, mtimeMs: node.mtime, kind: "folder" });
        contents.push(EMPTY);
      } else if (node.origin !== path || before?.mtimeMs !== node.mtime) {
        this.#loaded(node);
        written.push({ path, size: node.usedBytes, mtimeMs: node.mtime, kind: "file" });
        contents.push(node.contents.subarray(0, node.usedBytes));
      }
    });
    const deleted = [...this.#before.keys()].filter((path) => !present.has(path));
    return { changes: { written, deleted }, contents };
  }

  /** Takes what the folders hold now as what the host has: the next `changes` are relative to it. */
  commit(): void {
    const entries = new Map<string, FileEntry>();
    this.#visit((node, path) => {
      if (this.#fs.isLink(node.mode)) return;
      entries.set(path, {
        path,
        size: node.children ? 0 : node.usedBytes,
        mtimeMs: node.mtime,
        kind: node.children ? "folder" : "file",
      });
      if (!node.children) node.origin = path;
    });
    for (const root of WRITABLE_ROOTS) entries.delete(root);
    this.#before = entries;
  }

  /** What a file or folder holds that is open though it was deleted; null: it was not, or is not of these folders. */
  contentOfDeleted(node: Node): Uint8Array | null {
    const { orphan, children, contents, usedBytes } = node as TenantNode;
    if (!orphan) return null;
    return children ? EMPTY : contents.subarray(0, usedBytes);
  }

  /** Makes a file or folder that is deleted already, to be opened. */
  addDeleted(mode: number, content: Uint8Array, mtimeMs: number): Node {
    const node = new this.#fs.FSNode(this.#roots[0] as Node, "", mode, 0) as TenantNode;
    this.#prepare(node, mode);
    node.contents = content.slice();
    node.usedBytes = content.length;
    node.mtime = node.ctime = mtimeMs;
    node.orphan = true;
    this.#bytes += content.length;
    return node;
  }

  /** Symbolic links, which a session keeps though a workspace does not. */
  links(): { path: string; target: string }[] {
    const links: { path: string; target: string }[] = [];
    this.#visit((node, path) => {
      if (this.#fs.isLink(node.mode)) links.push({ path, target: node.link as string });
    });
    return links;
  }

  addLinks(links: readonly { path: string; target: string }[]): void {
    for (const { path, target } of links) {
      const node = this.#at(path, LINK_MODE);
      if (!node) continue;
      node.link = target;
      node.node_ops = this.#linkOperations;
    }
  }

  /** Deletes what was made outside the folders whose files are kept. */
  endExecution(): void {
    for (const folder of this.#openFolders) this.#empty(folder);
    try {
      this.#fs.lookupPath(this.#fs.currentPath);
    } catch {
      this.#fs.currentPath = HOME;
    }
  }

  /** Empties the folders; nothing of what they held stays reachable. */
  reset(): void {
    for (const folder of this.#openFolders) folder.children?.clear();
    // The same files get the same numbers in every execution.
    this.#fs.nextInode = this.#firstInode;
    this.#before = new Map();
    this.#maxBytes = this.#maxFiles = 0;
    this.#bytes = 0;
    this.#count = 0;
    this.#roots = WRITABLE_ROOTS.map((path, index) => {
      const mountpoint = this.#mountpoints[index] as Node;
      const root = new this.#fs.FSNode(null, "/", FOLDER_MODE, 0) as TenantNode;
      this.#prepare(root, FOLDER_MODE);
      const mount = { type: this, opts: {}, mountpoint: path, mounts: [], root };
      root.mount = mount;
      if (mountpoint.mounted) {
        const mounts = mountpoint.mount.mounts;
        mounts[mounts.indexOf(mountpoint.mounted)] = mount;
      } else {
        mountpoint.mount.mounts.push(mount);
      }
      mountpoint.mounted = mount;
      return root;
    });
  }

  /** Lets user code make files and folders in a folder that is read-only, beside what is there. */
  #open(node: Node): TenantNode {
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

  #empty(folder: TenantNode): void {
    for (const [name, child] of folder.children ?? []) {
      this.#empty(child);
      // A name that was renamed is in the global table, where the next execution would find it.
      this.#fs.hashRemoveNode(child);
      this.#remove(folder, name);
    }
  }

  /** Parents before children. */
  #visit(see: (node: TenantNode, path: string) => void): void {
    const visit = (node: TenantNode, path: string) => {
      see(node, path);
      for (const [name, child] of node.children ?? []) visit(child, `${path}/${name}`);
    };
    this.#roots.forEach((root, index) => {
      visit(root, WRITABLE_ROOTS[index] as string);
    });
  }

  #at(path: string, mode: number): TenantNode | null {
    const index = WRITABLE_ROOTS.findIndex((root) => path === root || path.startsWith(`${root}/`));
    if (index < 0) return null;
    let node = this.#roots[index] as TenantNode;
    const names = path.slice((WRITABLE_ROOTS[index] as string).length + 1).split("/");
    names.forEach((name, position) => {
      if (name === "") return;
      const existing = node.children?.get(name);
      node = existing ?? this.#create(node, name, position === names.length - 1 ? mode : FOLDER_MODE, false);
    });
    return node;
  }

  #create(parent: TenantNode, name: string, mode: number, counted = true): TenantNode {
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

  #remove(parent: TenantNode, name: string): void {
    const node = parent.children?.get(name);
    if (!node) throw new this.#fs.ErrnoError(ERRNO.ENOENT);
    // The host forgets a deleted file's content; whoever has it open may read on.
    if (node.unread !== null && this.#isOpen(node)) this.#loaded(node);
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
      this.#remove(newParent, newName);
    }
    const oldParent = node.parent as TenantNode;
    oldParent.children?.delete(node.name);
    newParent.children?.set(newName, node);
    node.name = newName;
    oldParent.mtime = oldParent.ctime = newParent.mtime = newParent.ctime = Date.now();
  }

  #loaded(node: TenantNode): TenantNode {
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

  #attributes(node: TenantNode) {
    const size = node.children ? 4096 : this.#fs.isLink(node.mode) ? (node.link as string).length : node.usedBytes;
    return {
      dev: 1,
      ino: node.id,
      mode: node.mode,
      nlink: 1,
      uid: 0,
      gid: 0,
      rdev: 0,
      size,
      atime: new Date(node.atime),
      mtime: new Date(node.mtime),
      ctime: new Date(node.ctime),
      blksize: 4096,
      blocks: Math.ceil(size / 4096),
    };
  }

  #setAttributes(node: TenantNode, attributes: { mode?: number; size?: number; atime?: number; mtime?: number }): void {
    if (attributes.mode != null) node.mode = attributes.mode;
    if (attributes.atime != null) node.atime = Number(attributes.atime);
    if (attributes.mtime != null) node.mtime = Number(attributes.mtime);
    if (attributes.size != null) {
      this.#loaded(node);
      this.#mappings.sync(node);
      this.#resize(node, attributes.size);
      this.#mappings.refresh(node);
      this.#changed(node);
    }
  }
}

const EMPTY = new Uint8Array(0);
/** Without a workspace, files live for one execution. */
const NO_FILES: FileListing = { entries: [], maxBytes: 64 * 1024 * 1024, maxFiles: 10_000 };

/** Whether user code made it; else it is of the interpreter. */
function isOwn(node: TenantNode): boolean {
  return node.orphan !== undefined;
}

function isRoot(path: string): boolean {
  return (WRITABLE_ROOTS as readonly string[]).includes(path);
}
