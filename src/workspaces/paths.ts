import { posix } from "node:path";
import { ClientError } from "../shared/errors.ts";

/** Where a sandbox starts, and where uploads arrive. */
export const HOME = "/home/pyodide";
/** Lead there in every sandbox: other systems have the home folder, or the files that go in and out, at these paths. */
const HOME_LINKS = ["/mnt/data", "/home/user"];

/** The only places of a sandbox whose files are kept. */
export const ROOTS = [HOME, "/tmp", "/plots"] as const;

/** Folders that every workspace has, whatever user code removes. */
export const FIXED_FOLDERS: ReadonlySet<string> = new Set([...ROOTS, "/plots/matplotlib", "/plots/seaborn"]);

// Linux's NAME_MAX and PATH_MAX: what Python code elsewhere is used to.
const MAX_COMPONENT_BYTES = 255;
export const MAX_PATH_BYTES = 4096;
/** What most paths are: of printable ASCII characters, each of which is a byte. They are known by one look. */
const PLAIN = /^\/(?:home\/pyodide|tmp|plots)(?:\/(?!\.{1,2}(?:\/|$))[ -.0-~]{1,255})*$/;

/**
 * Lets only the canonical spelling of a workspace path through, so that two spellings can never mean one file.
 *
 * These paths are names in an index, never host paths; refusing the rest keeps them safe to list and to pack.
 *
 * @returns the path: absolute, normalised, one of {@link ROOTS} or below it, at most 4096 bytes of UTF-8.
 * @throws {ClientError} 400 `invalid_path` for anything else.
 */
export function workspacePath(path: string): string {
  // The sandbox's word: where it has fallen, the types are what it likes.
  if (typeof path !== "string") throw new ClientError("invalid_path", "Not a path of a workspace");
  if (path.length <= MAX_PATH_BYTES && PLAIN.test(path)) return path;
  const root = ROOTS.find((candidate) => path === candidate || path.startsWith(`${candidate}/`));
  const allowed =
    root !== undefined &&
    path.isWellFormed() &&
    !path.includes("\0") &&
    Buffer.byteLength(path) <= MAX_PATH_BYTES &&
    path.slice(1).split("/").every(isComponent);
  if (!allowed) throw new ClientError("invalid_path", `Not a path of a workspace: ${shown(path)}`);
  return path;
}

/**
 * `posix.resolve`, for paths of clients. A long one is refused before it is resolved: each `..` of it copies all before it.
 *
 * @throws {ClientError} 400 `invalid_path` for more than 4096 characters.
 */
export function resolvedPath(folder: string, path: string): string {
  if (path.length > MAX_PATH_BYTES) throw new ClientError("invalid_path", `Not a path of a workspace: ${shown(path)}`);
  return posix.resolve(folder, path);
}

/**
 * The folder that code names in its own way: relative to {@link HOME}, by way of `/mnt/data` or `/home/user`, with `..` in it.
 *
 * @returns a path as {@link workspacePath} does.
 * @throws {ClientError} 400 `invalid_path`.
 */
export function workspaceFolder(path: string): string {
  return workspacePath(throughHomeLink(resolvedPath(HOME, path)));
}

/** Where an absolute path leads: `/home/pyodide/a.csv` for `/mnt/data/a.csv` and `/home/user/a.csv`; others are as they were. */
export function throughHomeLink(path: string): string {
  const link = HOME_LINKS.find((candidate) => `${path}/`.startsWith(`${candidate}/`));
  return link === undefined ? path : HOME + path.slice(link.length);
}

/** Whether a path of the sandbox lies where files are kept. */
export function isKept(path: string): boolean {
  return ROOTS.some((root) => path === root || path.startsWith(`${root}/`));
}

/** The folder a path lies in: `/plots` for `/plots/a.png`. */
export function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/"));
}

/** The last component: `a.png` for `/plots/a.png`. */
export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

function isComponent(component: string): boolean {
  return (
    component !== "" && component !== "." && component !== ".." && Buffer.byteLength(component) <= MAX_COMPONENT_BYTES
  );
}

function shown(path: string): string {
  return JSON.stringify(path.length > 100 ? `${path.slice(0, 100)}…` : path);
}
