/** Kernels and Jupyter's sessions as records: a kernel is a session of this server, and what Jupyter says of it is in its metadata. */
import { randomUUID } from "node:crypto";
import { baseOf } from "../../environments/registry.ts";
import { createSession, MAX_METADATA_CHARACTERS } from "../../http/resources/sessions.ts";
import type { Services } from "../../service/execution-service.ts";
import type { SessionView } from "../../sessions/views.ts";
import { ClientError } from "../../shared/errors.ts";
import { isObject } from "../../shared/json/json-object.ts";
import { HOME, parentOf, workspaceFolder } from "../../workspaces/paths.ts";

/** Names of metadata. */
const KERNEL = "jupyter_kernel";
const SESSION = "jupyter_session";

/** What every Jupyter client takes for Python. */
const PYTHON = new Set(["python3", "python", "py", ""]);
export const DEFAULT_KERNEL = "python3";

/** A document, or console, that has a kernel. */
export interface DocumentNote {
  readonly id: string;
  readonly path: string;
  readonly name: string;
  readonly type: string;
}

/** The environment that a kernel's name stands for; undefined: the default one. @throws {ClientError} 400 `unknown_environment`. */
function environmentOf({ packages }: Services, name: string): string | undefined {
  const { environments } = packages;
  if (environments.names.includes(name)) return name;
  if (PYTHON.has(name)) return undefined;
  const known = [DEFAULT_KERNEL, ...environments.names].join(", ");
  throw new ClientError("unknown_environment", `No such kernel: ${name.slice(0, 100)}. There are ${known}.`);
}

export interface NewKernel {
  readonly name?: string | null | undefined;
  readonly note?: DocumentNote | undefined;
  /** Of its document: the kernel begins in the folder that this lies in. */
  readonly path?: string | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
}

/** Its files are the principal's workspace, which `/api/contents` has. */
export async function createKernel(
  services: Services,
  principal: string,
  { name, note, path = note?.path, env }: NewKernel,
): Promise<SessionView> {
  const environment = environmentOf(services, name ?? "");
  const cwd = path === undefined ? undefined : await folderOf(services, principal, path);
  const kernel = { [KERNEL]: environment === undefined ? DEFAULT_KERNEL : environment };
  const metadata = withNote(kernel, note ?? null);
  return await createSession(services, principal, {
    id: randomUUID(),
    environment,
    metadata,
    cwd,
    env,
    files: "workspace",
  });
}

/**
 * The folder nearest to a document that the workspace has, as Jupyter Server finds it: the document may be on its client's disk alone.
 *
 * @returns undefined: the home folder.
 */
async function folderOf({ workspaces }: Services, principal: string, path: string): Promise<string | undefined> {
  const workspace = workspaces.of(principal);
  // A path that begins with / is relative to the root of the contents, too.
  let folder = `${HOME}/${path}`;
  try {
    folder = workspaceFolder(folder);
  } catch {
    return undefined;
  }
  for (; folder.startsWith(`${HOME}/`); folder = parentOf(folder)) {
    if ((await workspace.stat(folder))?.kind === "folder") return folder;
  }
  return undefined;
}

/** Those sessions that were made as kernels. */
export async function listKernels({ sessions }: Services, principal: string): Promise<readonly SessionView[]> {
  return (await sessions.list(principal)).filter(({ metadata }) => metadata[KERNEL] !== undefined);
}

/** Any session of the principal's is one, by its id. @throws {ClientError} 404 `session_not_found`. */
export async function findKernel({ sessions }: Services, principal: string, id: string): Promise<SessionView> {
  return await sessions.get(principal, id);
}

export function kernelNameOf({ metadata, environment }: SessionView): string {
  return metadata[KERNEL] ?? baseOf(environment);
}

/** What document has the kernel; null: none. */
export function noteOf({ metadata }: Pick<SessionView, "metadata">): DocumentNote | null {
  const text = metadata[SESSION];
  if (text === undefined) return null;
  try {
    const note: unknown = JSON.parse(text);
    if (!isObject(note)) return null;
    const { id, path = "", name = "", type = "notebook" } = note;
    if (![id, path, name, type].every((member) => typeof member === "string")) return null;
    return { id, path, name, type } as DocumentNote;
  } catch {
    // Its owner may write metadata of any kind.
    return null;
  }
}

/** Metadata that differs in which document has the kernel. */
export function withNote(
  metadata: Readonly<Record<string, string>>,
  note: DocumentNote | null,
): Readonly<Record<string, string>> {
  const { [SESSION]: _, ...rest } = metadata;
  if (note === null) return rest;
  const noted = { ...rest, [SESSION]: JSON.stringify(note) };
  const characters = Object.entries(noted).reduce((sum, [name, value]) => sum + name.length + value.length, 0);
  if (characters > MAX_METADATA_CHARACTERS) {
    throw new ClientError("invalid_request", "The path, name and type of a session are too long together.");
  }
  return noted;
}
