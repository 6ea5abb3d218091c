import express, { type Request, type Response, type Router } from "express";
import type { Services } from "../../service/execution-service.ts";
import { ClientError } from "../../shared/errors.ts";
import type { FileEntry } from "../../wire/messages.ts";
import { HOME, nameOf, ROOTS } from "../../workspaces/paths.ts";
import { callerOf } from "../caller.ts";

/** Files under paths of the sandbox: a session's, or a caller's workspace. */
export interface FileCollection {
  list(): Promise<readonly FileEntry[]>;
  /** @throws {ClientError} 404 if there is no such file. */
  read(path: string): Promise<Uint8Array>;
  /** @throws {ClientError} 409 `not_a_file` if a folder has the name, 413 if there is no room. */
  write(path: string, content: Uint8Array): Promise<FileEntry>;
  /** @throws {ClientError} 404 if there is no such file. */
  remove(path: string): Promise<void>;
}

/**
 * `GET base` lists, `GET|PUT|DELETE base/*path` reads, writes and deletes a file. Any kind of file is taken, up to
 * MAX_FILE_SIZE.
 *
 * @param collectionOf whose files a request means.
 */
export function serveFileCollection(
  router: Router,
  base: string,
  { config, securityLog }: Services,
  collectionOf: (request: Request, response: Response) => FileCollection,
): void {
  const timestamp = () => new Date().toISOString();
  const record = (request: Request, response: Response, event: "file_write" | "file_delete", details: object) => {
    const session = typeof request.params.id === "string" ? { session: request.params.id } : {};
    securityLog?.append({ event, ...callerOf(request, response), details: { ...details, ...session } });
  };

  router.get(base, async (request, response) => {
    const entries = await collectionOf(request, response).list();
    const files = entries.filter(({ kind }) => kind === "file").map(toFile);
    response.json({ success: true, files, count: files.length, timestamp: timestamp() });
  });

  router.get(`${base}/*path`, async (request, response) => {
    const path = sandboxPath(request.params.path);
    const content = await collectionOf(request, response).read(path);
    sendFile(response, nameOf(path), content);
  });

  const raw = express.raw({ type: () => true, limit: config.MAX_FILE_SIZE });
  router.put(`${base}/*path`, raw, async (request, response) => {
    const path = sandboxPath(request.params.path);
    const content = Buffer.isBuffer(request.body) ? request.body : new Uint8Array(0);
    const file = await collectionOf(request, response).write(path, content);
    record(request, response, "file_write", { path, size: file.size });
    response.json({ success: true, file: toFile(file), timestamp: timestamp() });
  });

  router.delete(`${base}/*path`, async (request, response) => {
    const path = sandboxPath(request.params.path);
    await collectionOf(request, response).remove(path);
    record(request, response, "file_delete", { path });
    response.json({ success: true, message: `File ${nameOf(path)} deleted successfully`, timestamp: timestamp() });
  });
}

/** As a file to be saved, whatever it is: nothing that user code wrote may become a page of ours. */
export function sendFile(response: Response, filename: string, content: Uint8Array): void {
  response.attachment(filename).type("application/octet-stream").send(Buffer.from(content));
}

/** `data.csv` is in the home folder; `tmp/x`, `plots/x` and `home/pyodide/x` are what they are in the sandbox. */
function sandboxPath(components: unknown): string {
  const forbidden = (component: string) =>
    component === "" || component === "." || component === ".." || /[/\\\0]/.test(component);
  const names = components as readonly string[];
  if (names.some(forbidden)) throw new ClientError("invalid_filename");
  const path = `/${names.join("/")}`;
  return ROOTS.some((root) => path.startsWith(`${root}/`)) ? path : HOME + path;
}

function toFile({ path, size, mtimeMs }: FileEntry) {
  return { path, name: nameOf(path), size, modified: new Date(mtimeMs).toISOString() };
}
