import type { MappedFile, OpenFile, UnnamedFile } from "../../wire/guest-messages.ts";
import { ERRNO, type FileSystem, type Module, type Node, type Pipe, type Stream } from "../interpreter/emscripten.ts";
import { PACKAGES_PATH } from "../interpreter/layout.ts";
import { NotCapturable } from "../memory/not-capturable.ts";
import type { FileMappings } from "./file-mappings.ts";
import { isStale, staleFile } from "./stale-file.ts";
import { ACCESS_MODE, openStreams } from "./streams.ts";
import type { TenantFiles } from "./writable.ts";

const WRITE_ONLY = 1;
const READ_ONLY_FILE_MODE = 0o100444;

type PipeNode = Node & { readonly pipe?: Pipe };

/** What is open, as another process can open it again; `contents` in the order of `unnamed`. */
export interface OpenFiles {
  readonly streams: readonly OpenFile[];
  readonly mappings: readonly MappedFile[];
  readonly unnamed: readonly UnnamedFile[];
  readonly contents: readonly Uint8Array[];
}

/**
 * Lists what is open.
 *
 * What a path leads to is opened by it again: files of the archives and of the standard library, which are the same in every
 * process, and the tenant's. What no path leads to, deleted files and pipes, takes its content along.
 *
 * @throws {NotCapturable} if something is neither.
 */
export function captureOpenFiles({ FS: fs }: Module, mappings: FileMappings, tenant: TenantFiles): OpenFiles {
  const groups = new Map<object, number>();
  const places = new Map<object, number>();
  const streams: OpenFile[] = [];
  const unnamedFiles: UnnamedFile[] = [];
  const contents: Uint8Array[] = [];
  const unnamed = (thing: object, describe: () => Omit<UnnamedFile, "bytes"> & { content: Uint8Array }) => {
    let place = places.get(thing);
    if (place === undefined) {
      place = places.size;
      places.set(thing, place);
      const { content, ...facts } = describe();
      unnamedFiles.push({ ...facts, bytes: content.length });
      contents.push(content);
    }
    return { unnamed: place };
  };
  const origin = (node: Node, path: string): Pick<OpenFile, "path" | "unnamed" | "bytes" | "stale"> => {
    if (isStale(node)) return { path: node.stalePath, stale: true };
    const { pipe } = node as PipeNode;
    if (pipe) {
      const describe = () => ({ kind: "pipe", mode: 0, mtimeMs: 0, content: contentOf(pipe) }) as const;
      return { path, ...unnamed(pipe, describe) };
    }
    if (isOfPackages(path)) return { path, bytes: node.usedBytes ?? 0 };
    const known = pathOf(fs, node, path);
    if (known !== null) return { path: known };
    const content = tenant.contentOfDeleted(node);
    if (content === null) throw new NotCapturable(`an open file of a kind that cannot be stored (${path})`);
    const kind = fs.isDir(node.mode) ? "folder" : "file";
    return { path, ...unnamed(node, () => ({ kind, mode: node.mode, mtimeMs: node.mtime, content })) };
  };
  for (const [fd, stream] of openStreams(fs)) {
    const group = groups.get(stream.shared) ?? groups.size;
    groups.set(stream.shared, group);
    const { flags, getdents } = stream;
    // A pipe has none.
    const position = Number.isFinite(stream.position) ? stream.position : 0;
    streams.push({
      fd,
      ...origin(stream.node, stream.path),
      flags,
      position,
      group,
      ...(getdents && { listing: getdents.join("/") }),
    });
  }
  const mapped = mappings.list().map(({ address, length, offset, writable, node }): MappedFile => {
    return { address, length, offset, writable, ...origin(node, fs.getPath(node)) };
  });
  return { streams, mappings: mapped, unnamed: unnamedFiles, contents };
}

/**
 * Opens files again, each under its descriptor.
 *
 * @param tenant null: none of the files is one that was deleted.
 * @param known streams of the baseline by their descriptors: of devices, which behave by the descriptor.
 * @throws if a path leads nowhere.
 */
export function reopen(
  module: Module,
  { streams, mappings, unnamed, contents }: OpenFiles,
  tenant: TenantFiles | null,
  known: ReadonlyMap<number, Stream>,
  mapped?: FileMappings,
): void {
  const fs = module.FS;
  const made = unnamed.map(({ kind, mode, mtimeMs }, index): { reads: Node; writes: Node } => {
    const content = contents[index] as Uint8Array;
    if (kind === "pipe") return makePipe(module, content);
    if (tenant === null) throw new Error("a deleted file without folders to be of");
    const node = tenant.addDeleted(mode, content, mtimeMs);
    return { reads: node, writes: node };
  });
  const nodeOf = ({
    path,
    flags,
    unnamed: place,
    bytes,
    stale,
  }: Pick<OpenFile, "path" | "flags" | "unnamed" | "bytes" | "stale">): Node => {
    if (stale) return staleFile(fs, path);
    if (place !== undefined) {
      const { reads, writes } = made[place] as { reads: Node; writes: Node };
      return (flags & ACCESS_MODE) === WRITE_ONLY ? writes : reads;
    }
    return bytes === undefined ? fs.lookupPath(path, { follow: false }).node : packageNode(fs, path, bytes);
  };
  const behaviour = (node: PipeNode, fd: number, path: string) => {
    if (node.pipe) {
      node.pipe.refcnt++;
      return { seekable: false, stream_ops: module.PIPEFS.stream_ops };
    }
    if (fs.isDir(node.mode) || fs.isFile(node.mode)) return { seekable: true, stream_ops: node.stream_ops };
    const atBaseline = known.get(fd);
    const device = atBaseline?.path === path ? atBaseline : fs.devices[node.rdev];
    return { seekable: false, stream_ops: (device ?? node).stream_ops };
  };
  const groups = new Map<number, Stream["shared"]>();
  for (const file of streams) {
    const { fd, path, flags, position, group, listing } = file;
    const node = nodeOf(file);
    const stream = fs.createStream({ node, path, ...behaviour(node, fd, path), ungotten: [], error: false }, fd);
    if (listing !== undefined) stream.getdents = listing.split("/");
    const shared = groups.get(group) ?? { flags, position };
    groups.set(group, shared);
    stream.shared = shared;
  }
  for (const { address, length, offset, writable, ...file } of mappings) {
    mapped?.add({ address, length, offset, writable, node: nodeOf({ ...file, flags: 0 }) });
  }
}

/** A pipe of which no end is open yet. */
function makePipe({ FS: fs, PIPEFS: pipes }: Module, content: Uint8Array): { reads: Node; writes: Node } {
  const { readable_fd, writable_fd } = pipes.createPipe();
  const [reads, writes] = [readable_fd, writable_fd].map((fd) => (fs.streams[fd] as Stream).node as PipeNode);
  for (const fd of [readable_fd, writable_fd]) fs.streams[fd] = null;
  const pipe = (reads as PipeNode).pipe as Pipe;
  pipe.refcnt = 0;
  if (content.length > 0) pipe.buckets = [{ buffer: content.slice(), offset: content.length, roffset: 0 }];
  return { reads: reads as Node, writes: writes as Node };
}

/** After other packages were mounted: what is open of them goes on where it was if it is still there. */
export function relinkPackageFiles(fs: FileSystem): void {
  for (const [, stream] of openStreams(fs)) {
    if (!isOfPackages(stream.path)) continue;
    stream.node = packageNode(fs, stream.path, stream.node.usedBytes ?? 0);
    stream.stream_ops = stream.node.stream_ops;
  }
}

/** @returns a path that leads to what was opened by a path, now maybe another; null: none does. */
export function pathOf(fs: FileSystem, node: Node, openedAs: string): string | null {
  // A device keeps the path it was opened by: 0 and 1 share one node.
  const path = fs.isFile(node.mode) || fs.isDir(node.mode) ? fs.getPath(node) : openedAs;
  try {
    return fs.lookupPath(path, { follow: false }).node === node ? path : null;
  } catch {
    return null;
  }
}

function isOfPackages(path: string): boolean {
  return path.startsWith(`${PACKAGES_PATH}/`);
}

/** A file or folder of the caller's packages, or a file that cannot be read any more where they have become others. */
function packageNode(fs: FileSystem, path: string, bytes: number): Node {
  try {
    const { node } = fs.lookupPath(path, { follow: false });
    if (node.usedBytes === bytes) return node;
  } catch {
    // A read says so.
  }
  const stale = () => {
    throw new fs.ErrnoError(ERRNO.ESTALE);
  };
  const { node } = fs.lookupPath(PACKAGES_PATH);
  const gone = new fs.FSNode(node, path.slice(path.lastIndexOf("/") + 1), READ_ONLY_FILE_MODE, 0);
  gone.usedBytes = bytes;
  gone.node_ops = { getattr: stale };
  gone.stream_ops = { read: stale, mmap: stale, llseek: fs.filesystems.MEMFS.stream_ops.llseek };
  return gone;
}

function contentOf({ buckets }: Pipe): Uint8Array {
  const parts = (buckets ?? []).map(({ buffer, offset, roffset }) => buffer.subarray(roffset, offset));
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let position = 0;
  for (const part of parts) {
    all.set(part, position);
    position += part.length;
  }
  return all;
}
