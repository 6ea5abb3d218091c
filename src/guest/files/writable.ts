import type { FileChanges } from "../../wire/guest-messages.ts";
import type { FileEntry, FileListing } from "../../wire/messages.ts";
import type { FileSystem, Node } from "../interpreter/emscripten.ts";
import type { FileMappings } from "./file-mappings.ts";
import { EMPTY, FILE_MODE, FOLDER_MODE, LINK_MODE, type TenantNode, TenantNodes } from "./tenant-nodes.ts";

/** The folders whose files are kept: for a workspace or a session, or for one execution. */
export const WRITABLE_ROOTS = ["/home/pyodide", "/tmp", "/plots"] as const;
/** The folders in which user code can make others, and files, that are there until the execution ends. What was in them stays read-only. */
export const OPEN_FOLDERS = ["/", "/home", "/home/web_user", "/mnt"] as const;
/** Where other systems of this kind have the home folder, or the files that go in and out: links to ours. */
export const HOME_LINKS = ["/mnt/data", "/home/user"] as const;
const HOME = "/home/pyodide";
const ALWAYS_PRESENT = ["/plots/matplotlib", "/plots/seaborn"];

/**
 * The folders user code can write to: filled for an execution, emptied after it, and able to say what it changed. What is in them:
 * `tenant-nodes.ts`.
 */
export class TenantFiles {
  readonly #fs: FileSystem;
  readonly #mappings: FileMappings;
  readonly #nodes: TenantNodes;
  readonly #mountpoints: readonly Node[];
  readonly #firstInode: number;
  readonly #openFolders: readonly TenantNode[];
  #roots: TenantNode[] = [];
  #before: ReadonlyMap<string, FileEntry> = new Map();

  /**
   * @param fs has the `WRITABLE_ROOTS` as folders already; `freeze` it first.
   * @param readContent blocks until the host has sent a workspace file's content.
   */
  constructor(fs: FileSystem, mappings: FileMappings, readContent: (path: string) => Uint8Array) {
    this.#fs = fs;
    this.#mappings = mappings;
    this.#nodes = new TenantNodes(fs, mappings, readContent);
    this.#firstInode = fs.nextInode;
    this.#mountpoints = WRITABLE_ROOTS.map((root) => fs.lookupPath(root, { follow_mount: false }).node);
    this.#openFolders = OPEN_FOLDERS.map((path) => this.#nodes.open(fs.lookupPath(path).node));
    this.reset();
  }

  /** Fills the folders for an execution or a session; null: there is nothing to keep, and little room. */
  begin(listing: FileListing | null): void {
    const { entries, maxBytes, maxFiles } = listing ?? NO_FILES;
    this.#nodes.begin(maxBytes, maxFiles);
    const now = Date.now();
    for (const root of this.#roots) root.mtime = root.ctime = root.atime = now;
    for (const entry of entries) {
      const node = this.#at(entry.path, entry.kind === "folder" ? FOLDER_MODE : FILE_MODE);
      if (!node) continue;
      node.mtime = node.ctime = node.atime = entry.mtimeMs;
      if (entry.kind === "file") this.#nodes.expect(node, entry.path, entry.size);
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
        this.#nodes.loaded(node);
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
    return this.#nodes.createDeleted(this.#roots[0] as TenantNode, mode, content, mtimeMs);
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
      if (node) this.#nodes.toLink(node, target);
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
    this.#nodes.reset();
    this.#roots = WRITABLE_ROOTS.map((path, index) => {
      const mountpoint = this.#mountpoints[index] as Node;
      const root = this.#nodes.createRoot();
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

  #empty(folder: TenantNode): void {
    for (const [name, child] of folder.children ?? []) {
      this.#empty(child);
      // A name that was renamed is in the global table, where the next execution would find it.
      this.#fs.hashRemoveNode(child);
      this.#nodes.remove(folder, name);
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
      node = existing ?? this.#nodes.create(node, name, position === names.length - 1 ? mode : FOLDER_MODE, false);
    });
    return node;
  }
}

/** Without a workspace, files live for one execution. */
const NO_FILES: FileListing = { entries: [], maxBytes: 64 * 1024 * 1024, maxFiles: 10_000 };

function isRoot(path: string): boolean {
  return (WRITABLE_ROOTS as readonly string[]).includes(path);
}
