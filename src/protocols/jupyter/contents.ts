/** Files as Jupyter's clients have them: a principal's workspace, with its home folder as root. */
import { isUtf8 } from "node:buffer";
import { posix } from "node:path";
import { HttpError } from "../../http/http-error.ts";
import { ClientError } from "../../shared/errors.ts";
import { FairTurns } from "../../shared/fair-turns.ts";
import type { JsonFragments } from "../../shared/json/json-parts.ts";
import { base64InSlices, SLICE_BYTES, textInSlices } from "../../shared/json/json-strings.ts";
import { JsonText } from "../../shared/json/json-text.ts";
import type { FileEntry } from "../../wire/messages.ts";
import { HOME, MAX_PATH_BYTES, nameOf, parentOf, workspacePath } from "../../workspaces/paths.ts";
import type { Written } from "../../workspaces/workspace-index.ts";
import type { PrincipalWorkspace } from "../../workspaces/workspaces.ts";

export type ContentType = "file" | "notebook" | "directory";
export type ContentFormat = "text" | "base64" | "json";

/** A file or folder as Jupyter describes it. */
export interface ContentModel {
  readonly name: string;
  /** Relative to the home folder. */
  readonly path: string;
  readonly type: ContentType;
  readonly last_modified: string;
  readonly created: string;
  readonly writable: true;
  readonly size: number | null;
  readonly mimetype: string | null;
  readonly format: ContentFormat | null;
  readonly content: JsonText | JsonFragments | readonly ContentModel[] | null;
}

/** What a client saves. */
export type NewContent =
  | { readonly type: "directory" }
  | {
      readonly type: "file";
      readonly bytes: Uint8Array;
      /** Which piece of a large one: the first one is 1, the last one -1. Absent: all of it. */
      readonly chunk?: number | undefined;
    }
  /** JSON. */
  | { readonly type: "notebook"; readonly text: string };

/** What a client asks for. */
export interface ContentQuery {
  readonly type?: string | undefined;
  readonly format?: string | undefined;
  readonly withContent: boolean;
}

/** What is read as one JSON text. */
const MAX_SHOWN_BYTES = 16 * 1024 * 1024;
const NOTEBOOK_LIMITS = { maxDepth: 200, maxNodes: 12_000_000 };
/** Where Jupyter keeps them, and with the name that it gives them. */
const CHECKPOINTS = ".ipynb_checkpoints";
export const CHECKPOINT_ID = "checkpoint";
const EMPTY_NOTEBOOK = { cells: [], metadata: {}, nbformat: 4, nbformat_minor: 5 };

/** The path in the sandbox. @throws {ClientError} 400 `invalid_path`. */
export function sandboxPath(names: readonly string[]): string {
  return workspacePath([HOME, ...names.filter((name) => name !== "")].join("/"));
}

/** As {@link sandboxPath}, of a path in a body: that has any length. @throws {ClientError} 400 `invalid_path`. */
export function sandboxPathOf(text: string): string {
  if (text.length > MAX_PATH_BYTES)
    throw new ClientError("invalid_path", `A path has at most ${MAX_PATH_BYTES} bytes.`);
  return sandboxPath(text.split("/"));
}

export interface ContentsOptions {
  readonly workspace: PrincipalWorkspace;
  readonly principal: string;
  /** Most that a file may have that is saved. */
  readonly maxFileBytes: number;
  /** Counts what a request holds, before it is in memory. @throws {ClientError} 429 */
  readonly hold: (bytes: number) => void;
  readonly signal: AbortSignal;
}

/** Large replies are made one after another: slices of many at once would be one long turn of the event loop. */
const making = new FairTurns(1);

export class Contents {
  readonly #options: ContentsOptions;
  readonly #workspace: PrincipalWorkspace;

  /** Of one request. */
  constructor(options: ContentsOptions) {
    this.#options = options;
    this.#workspace = options.workspace;
  }

  /** @throws {ClientError} 404 `not_found`; 400 where it is of another type than is asked for. */
  async get(path: string, { type, format, withContent }: ContentQuery): Promise<ContentModel> {
    const entry = await this.#find(path);
    const actual = type === "file" && entry.kind === "file" ? "file" : typeOf(entry);
    if (type !== undefined && type !== "" && type !== actual) {
      throw new HttpError(400, "not_a_file", `${shown(path)} is not a ${type.slice(0, 20)}`);
    }
    const model = describe(entry, actual);
    if (!withContent) return model;
    if (actual === "directory") return { ...model, format: "json", content: await this.#children(path) };
    const { hold, principal, signal } = this.#options;
    // Before it is read: requests that come together would have it in memory each.
    const bytes = await this.#workspace.read(path, (size) => {
      if (size > MAX_SHOWN_BYTES) {
        throw new HttpError(
          413,
          "file_too_large",
          `${shown(path)} has ${size} bytes, and at most ${MAX_SHOWN_BYTES} are shown: download it by /api/files`,
        );
      }
      hold(size);
    });
    const make = async () => ({ ...model, ...(await shownContent(bytes, path, actual, format)) });
    if (bytes.length <= SLICE_BYTES) return await make();
    const made = await making.run(principal, make, signal);
    // Escapes make it several times as long.
    hold(lengthOf(made.content));
    return made;
  }

  /** @returns what it is now, and whether it is new. */
  async save(path: string, content: NewContent): Promise<{ readonly model: ContentModel; readonly isNew: boolean }> {
    const before = await this.#workspace.stat(path);
    if (content.type === "directory") {
      if (before?.kind === "file") throw new HttpError(400, "not_a_file", `Not a directory: ${shown(path)}`);
      if (before === undefined) await this.#change([{ path, kind: "folder", mtimeMs: Date.now() }], []);
    } else {
      const bytes = content.type === "notebook" ? Buffer.from(`${content.text}\n`) : content.bytes;
      // Pieces come one after another: what is there is what came before.
      const { maxFileBytes, hold } = this.#options;
      const isMore = content.type === "file" && content.chunk !== undefined && content.chunk !== 1;
      // Before what is there is read: each piece would be, in the end, a read of all before it.
      const sizeBefore = isMore && before?.kind === "file" ? before.size : 0;
      if (sizeBefore + bytes.length > maxFileBytes) {
        throw new HttpError(
          413,
          "file_too_large",
          `${shown(path)} is too large: a file may have ${maxFileBytes} bytes`,
        );
      }
      const whole = isMore ? Buffer.concat([await this.#workspace.read(path, hold), bytes]) : bytes;
      await this.#workspace.put(path, whole);
    }
    return { model: describe(await this.#find(path)), isNew: before === undefined };
  }

  /** Makes something with a name that nothing in the folder has. */
  async create(folder: string, type: ContentType, extension: string): Promise<ContentModel> {
    const stem = type === "directory" ? "Untitled Folder" : type === "notebook" ? "Untitled" : "untitled";
    const path = await this.#freePath(folder, stem, type === "notebook" ? ".ipynb" : extension, "");
    const text = JSON.stringify(EMPTY_NOTEBOOK, null, 1);
    const empty: Record<ContentType, NewContent> = {
      directory: { type: "directory" },
      file: { type: "file", bytes: new Uint8Array(0) },
      notebook: { type: "notebook", text },
    };
    return (await this.save(path, empty[type])).model;
  }

  async copy(from: string, folder: string): Promise<ContentModel> {
    const entry = await this.#find(from);
    const { name, ext } = posix.parse(entry.path);
    // As Jupyter names them: the copy of a copy is no copy of a copy.
    const path = await this.#freePath(folder, name.replace(/-Copy\d{0,9}$/, ""), ext, "-Copy");
    if (entry.kind === "folder") {
      throw new HttpError(400, "not_a_file", `Can't copy directories: ${shown(from)}`);
    }
    await this.#workspace.copy(entry.path, path);
    return describe(await this.#find(path));
  }

  /** With all that is in it, and with the checkpoint of a file. */
  async rename(from: string, to: string): Promise<ContentModel> {
    if (from === to) return describe(await this.#find(from));
    if (from === HOME || `${to}/`.startsWith(`${from}/`)) {
      throw new HttpError(400, "invalid_path", `Cannot move ${shown(from)} there`);
    }
    await this.#workspace.change(new Map(), (index) => {
      if (index.get(from) === undefined) throw notFound(from);
      if (index.get(to) !== undefined) throw new HttpError(409, "not_a_file", `File already exists: ${shown(to)}`);
      for (let parent = parentOf(to); parent !== ""; parent = parentOf(parent)) {
        if (index.get(parent)?.kind === "file") throw new ClientError("not_a_file", `${nameOf(parent)} is a file`);
      }
      const moves = [[from, to] as const, [checkpointOf(from), checkpointOf(to)] as const];
      const moved = Array.from(index.entries()).flatMap(([path, entry]) => {
        const move = moves.find(([old]) => path === old || path.startsWith(`${old}/`));
        return move === undefined ? [] : [{ old: path, path: move[1] + path.slice(move[0].length), ...entry }];
      });
      return { written: moved.map(({ old: _, ...entry }) => entry), deleted: moved.map(({ old }) => old) };
    });
    return describe(await this.#find(to));
  }

  /** A folder only if nothing is in it, but for checkpoints. */
  async delete(path: string): Promise<void> {
    if (path === HOME) throw new HttpError(400, "invalid_path", "The home folder cannot be deleted");
    await this.#workspace.change(new Map(), (index) => {
      if (index.get(path) === undefined) throw notFound(path);
      const below = Array.from(index.entries(), ([name]) => name).filter((name) => name.startsWith(`${path}/`));
      if (below.some((name) => !`${name}/`.startsWith(`${path}/${CHECKPOINTS}/`))) {
        throw new HttpError(400, "not_a_file", `Directory ${shown(path)} not empty`);
      }
      return { written: [], deleted: [path, ...below, checkpointOf(path)] };
    });
  }

  async checkpoints(path: string): Promise<readonly { readonly id: string; readonly last_modified: string }[]> {
    await this.#find(path);
    const entry = await this.#workspace.stat(checkpointOf(path));
    return entry === undefined ? [] : [checkpointModel(entry)];
  }

  async checkpoint(path: string): Promise<{ readonly id: string; readonly last_modified: string }> {
    return checkpointModel(await this.#workspace.copy(path, checkpointOf(path)));
  }

  async restore(path: string): Promise<void> {
    await this.#workspace.copy(checkpointOf(path), path);
  }

  async deleteCheckpoint(path: string): Promise<void> {
    await this.#workspace.remove(checkpointOf(path));
  }

  async #find(path: string): Promise<FileEntry> {
    const entry = await this.#workspace.stat(path);
    if (entry === undefined) throw notFound(path);
    return entry;
  }

  async #children(folder: string): Promise<readonly ContentModel[]> {
    const entries = (await this.#workspace.list()).filter(
      ({ path }) => parentOf(path) === folder && !nameOf(path).startsWith("."),
    );
    return entries.map((entry) => describe(entry));
  }

  async #freePath(folder: string, stem: string, extension: string, suffix: string): Promise<string> {
    const taken = new Set((await this.#workspace.list()).map(({ path }) => path));
    for (let number = suffix === "" ? 0 : 1; ; number++) {
      // A copy is numbered from 1, and a folder with a space before its number.
      const counted = number === 0 ? "" : `${suffix === "" && stem.includes(" ") ? " " : ""}${number}`;
      const path = workspacePath(`${folder}/${stem}${suffix}${counted}${extension}`);
      if (!taken.has(path)) return path;
    }
  }

  async #change(written: readonly Written[], deleted: readonly string[]): Promise<void> {
    await this.#workspace.change(new Map(), () => ({ written, deleted }));
  }
}

function typeOf({ kind, path }: FileEntry): ContentType {
  if (kind === "folder") return "directory";
  return path.endsWith(".ipynb") ? "notebook" : "file";
}

function describe(entry: FileEntry, type = typeOf(entry)): ContentModel {
  const { path, mtimeMs, size } = entry;
  const modified = new Date(mtimeMs).toISOString();
  return {
    name: path === HOME ? "" : nameOf(path),
    path: path.slice(HOME.length + 1),
    type,
    last_modified: modified,
    created: modified,
    writable: true,
    size: type === "directory" ? null : size,
    mimetype: null,
    format: null,
    content: null,
  };
}

async function notebookOf(bytes: Uint8Array, path: string): Promise<JsonText> {
  const text = await JsonText.checkInSlices(bytes, NOTEBOOK_LIMITS).catch(() => null);
  if (text?.facts.kind !== "object") throw new HttpError(400, "invalid_request", `Unreadable Notebook: ${shown(path)}`);
  return text;
}

/** @param asked the format that is asked for. @throws {ClientError} 400 */
async function shownContent(
  bytes: Uint8Array,
  path: string,
  type: "file" | "notebook",
  asked: string | undefined,
): Promise<{
  readonly format: ContentFormat;
  readonly mimetype?: string;
  readonly content: JsonText | JsonFragments;
}> {
  if (type === "notebook") return { format: "json", content: await notebookOf(bytes, path) };
  if (asked !== "base64" && isUtf8(bytes))
    return { format: "text", mimetype: "text/plain", content: await textInSlices(bytes) };
  if (asked === "text") throw new HttpError(400, "invalid_encoding", `${shown(path)} is not UTF-8 encoded`);
  return { format: "base64", mimetype: "application/octet-stream", content: await base64InSlices(bytes) };
}

function lengthOf(content: JsonText | JsonFragments): number {
  const parts = content instanceof JsonText ? [content.bytes] : content.parts;
  return parts.reduce((sum, part) => sum + part.length, 0);
}

/** Of a file: `a/b.ipynb` has it in `a/.ipynb_checkpoints/b-checkpoint.ipynb`. */
function checkpointOf(path: string): string {
  const { dir, name, ext } = posix.parse(path);
  return workspacePath(`${dir}/${CHECKPOINTS}/${name}-checkpoint${ext}`);
}

function checkpointModel({ mtimeMs }: FileEntry) {
  return { id: CHECKPOINT_ID, last_modified: new Date(mtimeMs).toISOString() };
}

function notFound(path: string): ClientError {
  return new ClientError("not_found", `No such file or directory: ${shown(path)}`);
}

function shown(path: string): string {
  return path.slice(HOME.length + 1, HOME.length + 201);
}
