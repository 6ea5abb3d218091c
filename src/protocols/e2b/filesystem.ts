import type { Services } from "../../service/execution-service.ts";
import type { FileChange } from "../../sessions/files.ts";
import { sha256Hex } from "../../shared/blob-folder.ts";
import { ClientError } from "../../shared/errors.ts";
import type { FileEntry } from "../../wire/messages.ts";
import { FIXED_FOLDERS, nameOf, parentOf, ROOTS, workspacePath } from "../../workspaces/paths.ts";
import type { WorkspaceIndex, Written } from "../../workspaces/workspace-index.ts";
import { AlreadyExists } from "./connect.ts";
import { toE2b, toOwn } from "./paths.ts";

/** What stands above the folders whose files are kept. */
const ABOVE = ["/", "/home"];
const LONG_AGO_MS = 0;
/** As Linux has it: some clients take a folder of 0 bytes for none. */
const FOLDER_BYTES = 4096;

/** A file or a folder as E2B's clients read it. */
export interface EntryInfo {
  readonly name: string;
  readonly type: "FILE_TYPE_FILE" | "FILE_TYPE_DIRECTORY";
  readonly path: string;
  /** int64 in JSON. */
  readonly size: string;
  readonly mode: number;
  readonly permissions: string;
  readonly owner: string;
  readonly group: string;
  readonly modifiedTime: string;
}

export interface UploadedFile {
  readonly path: string;
  readonly content: Uint8Array;
}

/** The files of one sandbox, by E2B's paths. */
export class SandboxFiles {
  readonly #services: Services;
  readonly #principal: string;
  readonly #id: string;

  constructor(services: Services, principal: string, id: string) {
    this.#services = services;
    this.#principal = principal;
    this.#id = id;
  }

  /** Everything that is there, by the sandbox's own paths. */
  async entries(): Promise<ReadonlyMap<string, FileEntry>> {
    const listing = await this.#services.sessions.files.list(this.#principal, this.#id);
    const above = ABOVE.map((path): FileEntry => ({ path, size: 0, mtimeMs: LONG_AGO_MS, kind: "folder" }));
    return new Map([...above, ...listing].map((entry) => [entry.path, entry]));
  }

  /** @throws {ClientError} 404 */
  async stat(path: string): Promise<EntryInfo> {
    return toInfo(found(await this.entries(), path));
  }

  /** @throws {ClientError} 404, 400 for a file. */
  async list(path: string, depth: number): Promise<EntryInfo[]> {
    const entries = await this.entries();
    const folder = found(entries, path);
    if (folder.kind === "file") throw new ClientError("invalid_path", `path is not a directory: ${path}`);
    const base = folder.path === "/" ? "" : folder.path;
    const levels = base.split("/").length + depth;
    return [...entries.values()]
      .filter(
        (entry) => entry.path !== "/" && entry.path.startsWith(`${base}/`) && entry.path.split("/").length <= levels,
      )
      .sort((a, b) => (a.path < b.path ? -1 : 1))
      .map(toInfo);
  }

  /** @throws {ClientError} 404, 400 for a folder. */
  async read(path: string, onSize: (bytes: number) => void): Promise<Uint8Array> {
    const entry = found(await this.entries(), path);
    if (entry.kind === "folder") throw new ClientError("invalid_path", `path '${path}' is a directory`);
    return await this.#services.sessions.files.read(this.#principal, this.#id, entry.path, onSize);
  }

  /** @throws {ClientError} 400 for a folder, or two of one path. */
  async write(
    files: readonly UploadedFile[],
    signal: AbortSignal,
  ): Promise<{ path: string; name: string; type: "file" }[]> {
    const mtimeMs = Date.now();
    const contents = new Map<string, Uint8Array>();
    const written = new Map<string, Written>();
    for (const { path: asked, content } of files) {
      const path = keptPath(asked);
      if (written.has(path))
        throw new ClientError(
          "invalid_path",
          `you cannot upload multiple files to the same path '${toE2b(path)}' in one upload request`,
        );
      const sha256 = await sha256Hex(content);
      contents.set(sha256, content);
      written.set(path, { path, kind: "file", mtimeMs, sha256, size: content.length });
    }
    await this.#change(signal, contents, (index) => {
      for (const path of written.keys()) {
        if (index.get(path)?.kind === "folder")
          throw new ClientError("invalid_path", `path '${toE2b(path)}' is a directory`);
        refuseFilesAbove(index, path);
      }
      return { written: [...written.values()], deleted: [] };
    });
    return Array.from(written.keys(), (path) => ({ path: toE2b(path), name: nameOf(path), type: "file" as const }));
  }

  /** With the folders above it. @throws {AlreadyExists} */
  async makeFolder(asked: string, signal: AbortSignal): Promise<EntryInfo> {
    if (ABOVE.includes(toOwn(asked))) throw new AlreadyExists(`directory already exists: ${asked}`);
    const path = keptPath(asked);
    const mtimeMs = Date.now();
    await this.#change(signal, null, (index) => {
      const there = index.get(path);
      if (there?.kind === "folder") throw new AlreadyExists(`directory already exists: ${toE2b(path)}`);
      if (there) throw new ClientError("invalid_path", `path already exists but it is not a directory: ${toE2b(path)}`);
      refuseFilesAbove(index, path);
      return { written: [{ path, kind: "folder", mtimeMs }], deleted: [] };
    });
    return toInfo({ path, kind: "folder", mtimeMs, size: 0 });
  }

  /** A file, or a folder with all that is in it. @throws {ClientError} 404 */
  async move(source: string, destination: string, signal: AbortSignal): Promise<EntryInfo> {
    const [from, to] = [keptPath(source), keptPath(destination)];
    await this.#change(signal, null, (index) => {
      const entry = index.get(from);
      if (!entry) throw notFound(source);
      if (FIXED_FOLDERS.has(from)) throw new ClientError("invalid_path", `the folder ${toE2b(from)} cannot be moved`);
      if (from === to) return { written: [], deleted: [] };
      if (to.startsWith(`${from}/`)) throw new ClientError("invalid_path", "a folder cannot be moved into itself");
      const target = index.get(to);
      if (target && target.kind !== entry.kind)
        throw new ClientError("invalid_path", `${toE2b(to)} is of another kind`);
      if (target?.kind === "folder" && [...below(index, to)].length > 0)
        throw new ClientError("invalid_path", `${toE2b(to)} is not empty`);
      refuseFilesAbove(index, to);
      const moved = [[from, entry] as const, ...below(index, from)];
      const written = moved.map(([path, other]): Written => ({ ...other, path: to + path.slice(from.length) }));
      return { written, deleted: moved.map(([path]) => path) };
    });
    return await this.stat(toE2b(to));
  }

  /** A file, or a folder with all that is in it; nothing where there is nothing. */
  async remove(asked: string, signal: AbortSignal): Promise<void> {
    const path = keptPath(asked);
    await this.#change(signal, null, (index) => ({
      written: [],
      deleted: index.get(path) ? [path, ...Array.from(below(index, path), ([inner]) => inner)] : [],
    }));
  }

  async #change(
    signal: AbortSignal,
    contents: ReadonlyMap<string, Uint8Array> | null,
    plan: (index: WorkspaceIndex) => FileChange,
  ): Promise<void> {
    await this.#services.sessions.files.change(this.#principal, this.#id, signal, contents, plan);
  }
}

/** @throws {ClientError} 400 */
function keptPath(asked: string): string {
  const path = toOwn(asked);
  if (!ROOTS.some((root) => `${path}/`.startsWith(`${root}/`)))
    throw new ClientError(
      "invalid_path",
      `permission denied: ${asked.slice(0, 200)} (files are kept in /home/user, /tmp and /plots)`,
    );
  return workspacePath(path);
}

function* below(index: WorkspaceIndex, folder: string): Generator<readonly [string, Written]> {
  for (const [path, entry] of index.entries()) if (path.startsWith(`${folder}/`)) yield [path, { ...entry, path }];
}

function refuseFilesAbove(index: WorkspaceIndex, path: string): void {
  for (let parent = parentOf(path); parent !== ""; parent = parentOf(parent)) {
    if (index.get(parent)?.kind === "file")
      throw new ClientError("invalid_path", `${toE2b(parent)} is not a directory`);
  }
}

function found(entries: ReadonlyMap<string, FileEntry>, path: string): FileEntry {
  const entry = entries.get(toOwn(path));
  if (!entry) throw notFound(path);
  return entry;
}

function notFound(path: string): ClientError {
  return new ClientError("not_found", `path '${path.slice(0, 200)}' does not exist`);
}

export function toInfo({ path, size, mtimeMs, kind }: FileEntry): EntryInfo {
  const isFolder = kind === "folder";
  return {
    name: path === "/" ? "/" : nameOf(toE2b(path)),
    type: isFolder ? "FILE_TYPE_DIRECTORY" : "FILE_TYPE_FILE",
    path: toE2b(path),
    size: String(isFolder ? FOLDER_BYTES : size),
    mode: isFolder ? 0o755 : 0o644,
    permissions: isFolder ? "drwxr-xr-x" : "-rw-r--r--",
    owner: "user",
    group: "user",
    modifiedTime: new Date(mtimeMs).toISOString(),
  };
}
