import type { Response } from "express";
import { z } from "zod";
import type { SecurityEvent } from "../../security-log/event.ts";
import { ClientError, type ErrorCode } from "../../shared/errors.ts";
import type { FileEntry } from "../../wire/messages.ts";
import { HOME, MAX_PATH_BYTES, nameOf, ROOTS, throughHomeLink } from "../../workspaces/paths.ts";
import { sendParts } from "../byte-reply.ts";
import { holdReply } from "../middleware/held-requests.ts";
import { type Access, type Asked, done, download, fileBody, type Route, reply, route, type Tag } from "../routes.ts";
import { count, fileSchema } from "../schemas.ts";

/** Files under paths of the sandbox: a session's, or a caller's workspace. */
export interface FileCollection {
  /** What the security log has besides the path of what was changed. */
  readonly details?: SecurityEvent["details"];
  list(): Promise<readonly FileEntry[]>;
  /** @param onSize called before the content is read; what it throws is thrown. @throws {ClientError} `not_found` if there is no such file. */
  read(path: string, onSize?: (bytes: number) => void): Promise<Uint8Array>;
  /** @throws {ClientError} `not_a_file` if a folder has the name; if there is no room. */
  write(path: string, content: Uint8Array): Promise<FileEntry>;
  /** @throws {ClientError} `not_found` if there is no such file. */
  remove(path: string): Promise<void>;
}

export interface FileCollectionOptions {
  readonly base: string;
  readonly scope: Access;
  readonly tag: Tag;
  /** In the operations' names: `list<what>s`, `read<what>`. */
  readonly what: string;
  /** In the summaries: `List the files of <whose>`. */
  readonly whose: string;
  readonly errors: { readonly read: readonly ErrorCode[]; readonly write: readonly ErrorCode[] };
  /** Whose files a request means. */
  readonly collectionOf: (asked: Asked<unknown, unknown, unknown>) => FileCollection;
}

/**
 * `GET base` lists, `GET|PUT|DELETE base/*path` reads, writes and deletes a file. Any kind of file is taken, up to
 * MAX_FILE_SIZE.
 */
export function fileCollection({
  base,
  scope,
  tag,
  what,
  whose,
  errors,
  collectionOf,
}: FileCollectionOptions): readonly Route[] {
  const file = `${base}/*path` as const;
  return [
    route({
      method: "get",
      path: base,
      scope,
      tag,
      operation: `list${what}s`,
      summary: `List the files of ${whose}`,
      reply: reply("The files.", { files: z.array(fileSchema), count }),
      errors: errors.read,
      handler: async (asked) => {
        const entries = await collectionOf(asked).list();
        const files = entries.filter(({ kind }) => kind === "file").map(toFile);
        return { files, count: files.length };
      },
    }),
    route({
      method: "get",
      path: file,
      scope,
      tag,
      operation: `read${what}`,
      summary: `Download a file of ${whose}`,
      reply: download,
      errors: ["invalid_filename", "not_found", ...errors.read],
      handler: async (asked) => {
        const path = sandboxPath(asked.params.path);
        await sendFile(asked.response, nameOf(path), (onSize) => collectionOf(asked).read(path, onSize));
      },
    }),
    route({
      method: "put",
      path: file,
      scope,
      tag,
      operation: `write${what}`,
      summary: `Write a file of any kind to ${whose}`,
      body: fileBody,
      reply: reply("The file.", { file: fileSchema }),
      errors: ["invalid_filename", "not_a_file", ...errors.write],
      handler: async (asked) => {
        const path = sandboxPath(asked.params.path);
        const collection = collectionOf(asked);
        const written = await collection.write(path, asked.body);
        asked.record("file_write", { path, size: written.size, ...collection.details });
        return { file: toFile(written) };
      },
    }),
    route({
      method: "delete",
      path: file,
      scope,
      tag,
      operation: `delete${what}`,
      summary: `Delete a file of ${whose}`,
      reply: done("It is gone."),
      errors: ["invalid_filename", "not_found", ...errors.write],
      handler: async (asked) => {
        const path = sandboxPath(asked.params.path);
        const collection = collectionOf(asked);
        await collection.remove(path);
        asked.record("file_delete", { path, ...collection.details });
        return { message: `File ${nameOf(path)} deleted successfully` };
      },
    }),
  ];
}

/**
 * As a file to be saved, whatever it is: nothing that user code wrote may become a page of ours.
 *
 * @param read calls `onSize` before it reads the content: many large replies at a time are refused before they are in memory.
 * @throws {ClientError} 429 `too_much_held`; what `read` throws.
 */
export async function sendFile(
  response: Response,
  filename: string,
  read: (onSize: (bytes: number) => void) => Promise<Uint8Array>,
): Promise<void> {
  const content = await read((bytes) => holdReply(response, bytes));
  sendParts(response.attachment(filename).type("application/octet-stream"), [content]);
}

/**
 * `data.csv` is in the home folder; `tmp/x`, `plots/x`, `home/pyodide/x`, `mnt/data/x` and `home/user/x` are what they are
 * in the sandbox.
 *
 * @throws {ClientError} 400 `invalid_filename`.
 */
export function sandboxPath(names: readonly string[]): string {
  const forbidden = (component: string) =>
    component === "" || component === "." || component === ".." || /[/\\\0]/.test(component);
  if (names.some(forbidden)) throw new ClientError("invalid_filename");
  const path = throughHomeLink(`/${names.join("/")}`);
  return path === HOME || ROOTS.some((root) => path.startsWith(`${root}/`)) ? path : HOME + path;
}

/**
 * As {@link sandboxPath}, of a path in a body: that has any length.
 *
 * @throws {ClientError} 400 `invalid_filename`.
 */
export function sandboxPathOf(text: string): string {
  if (text.length > MAX_PATH_BYTES) throw new ClientError("invalid_filename");
  return sandboxPath(text.split("/"));
}

function toFile({ path, size, mtimeMs }: FileEntry) {
  return { path, name: nameOf(path), size, modified: new Date(mtimeMs).toISOString() };
}
