import { isUtf8 } from "node:buffer";
import type { CallToolResult } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";
import { type FileCollection, sandboxPathOf } from "../../http/resources/file-collection.ts";
import { workspaceFiles } from "../../http/resources/files.ts";
import { sessionFiles } from "../../http/resources/sessions.ts";
import { ClientError } from "../../shared/errors.ts";
import { BASE64 } from "../bodies.ts";
import { requireScopes, structured, type ToolCall, tool } from "./tool.ts";

const MAX_FILES_AT_ONCE = 64;
const MAX_LISTED = 500;
const MAX_READ_BYTES = 1024 * 1024;
const DEFAULT_READ_BYTES = 50_000;
const [TAB, LINE_FEED, CARRIAGE_RETURN] = [0x09, 0x0a, 0x0d];

export const fileInput = z.union(
  [z.string(), z.object({ base64: z.string().regex(BASE64) })],
  'A file must be text, or {"base64": "…"}.',
);

const session = z
  .string("Session must be a string.")
  .optional()
  .meta({ description: "Of this session; without it: of the workspace that code without a session works on." });
const path = z
  .string("Path must be a string.")
  .meta({ description: "Below the home folder (/home/pyodide), /tmp or /plots.", examples: ["data.csv"] });

/** A session's files, or those of the principal's workspace. @throws {ClientError} 403 */
export function filesOf(call: ToolCall, session: string | undefined): FileCollection {
  requireScopes(call, ["files"]);
  const { services, principal, signal } = call;
  return session === undefined
    ? workspaceFiles(services, principal.id)
    : sessionFiles(services, principal.id, session, signal);
}

/** @throws {ClientError} */
export async function writeFiles(
  call: ToolCall,
  collection: FileCollection,
  files: Readonly<Record<string, z.output<typeof fileInput>>>,
): Promise<readonly { readonly path: string; readonly size: number }[]> {
  const all = Object.entries(files).map(([name, content]) => ({ path: pathOf(name), content: bytesOf(content) }));
  if (all.length > MAX_FILES_AT_ONCE)
    throw new ClientError("too_many_files", { hint: `At most ${MAX_FILES_AT_ONCE} can be written at a time.` });
  const { MAX_FILE_SIZE } = call.services.config;
  const large = all.find(({ content }) => content.length > MAX_FILE_SIZE);
  if (large) throw new ClientError("file_too_large", `File too large. Maximum size: ${MAX_FILE_SIZE} bytes.`);
  const written: { path: string; size: number }[] = [];
  try {
    for (const { path, content } of all) {
      const { size } = await collection.write(path, content);
      written.push({ path, size });
    }
  } finally {
    if (written.length > 0) {
      const size = written.reduce((sum, file) => sum + file.size, 0);
      call.record("file_write", { path: written.map((file) => file.path).join(", "), size, ...collection.details });
    }
  }
  return written;
}

/** As a client names it, from the home folder or from the root. @throws {ClientError} 400 `invalid_filename`. */
export function pathOf(name: string): string {
  return sandboxPathOf(name.replace(/^\//, ""));
}

function bytesOf(content: z.output<typeof fileInput>): Uint8Array {
  return typeof content === "string" ? Buffer.from(content) : Buffer.from(content.base64, "base64");
}

const file = z.looseObject({ path: z.string(), size: z.int() });

export const fileTools = [
  tool({
    name: "files_list",
    title: "List files",
    description: "Lists files of a session, or of the workspace.",
    scopes: ["files"],
    input: z.object({ session }),
    output: z.looseObject({ files: z.array(file), count: z.int() }),
    annotations: { readOnlyHint: true, idempotentHint: true },
    run: async (call, input) => {
      const entries = (await filesOf(call, input.session).list()).filter(({ kind }) => kind === "file");
      const files = entries.slice(0, MAX_LISTED).map(({ path, size }) => ({ path, size }));
      const lines = files.map(({ path, size }) => `${path} (${size} bytes)`);
      if (entries.length > files.length) lines.push(`… and ${entries.length - files.length} more`);
      return structured({ files, count: entries.length }, lines.join("\n") || "(no files)");
    },
  }),
  tool({
    name: "files_read",
    title: "Read a file",
    description:
      "Reads a file of a session, or of the workspace: text as text, images as images, other files as base64. Large files: process them with run_python instead.",
    scopes: ["files"],
    input: z.object({
      session,
      path,
      offset: z
        .int("Offset must be a whole number.")
        .min(0)
        .optional()
        .meta({ description: "First byte; default: 0." }),
      max_bytes: z
        .int("Max_bytes must be a whole number.")
        .min(1)
        .max(MAX_READ_BYTES, `At most ${MAX_READ_BYTES} bytes can be read at a time.`)
        .optional()
        .meta({ description: `Default: ${DEFAULT_READ_BYTES}; an image is read whole.` }),
    }),
    output: z.looseObject({
      path: z.string(),
      size: z.int(),
      offset: z.int(),
      bytes: z.int().describe("That were read."),
      encoding: z.enum(["utf-8", "base64", "image"]),
      content: z.string().optional().describe("Absent for an image, which is in the result's content."),
    }),
    annotations: { readOnlyHint: true, idempotentHint: true },
    run: async (call, input) =>
      readResult(input, await filesOf(call, input.session).read(pathOf(input.path), call.hold)),
  }),
  tool({
    name: "files_write",
    title: "Write a file",
    description: "Writes a file into a session, or into the workspace; a file of that name is replaced.",
    scopes: ["files"],
    input: z.object({
      session,
      path,
      content: z.string("Content must be a string."),
      encoding: z
        .enum(["utf-8", "base64"], 'Encoding must be "utf-8" or "base64".')
        .optional()
        .meta({ description: "What `content` is. Default: utf-8." }),
    }),
    output: file,
    annotations: { destructiveHint: true, idempotentHint: true },
    run: async (call, { session, path, content, encoding }) => {
      if (encoding === "base64" && !BASE64.test(content))
        throw new ClientError("invalid_request", "The content is not base64.");
      const data = encoding === "base64" ? { base64: content } : content;
      const [written] = await writeFiles(call, filesOf(call, session), { [path]: data });
      return structured({ ...written }, `Wrote ${written?.path} (${written?.size} bytes).`);
    },
  }),
];

function readResult(
  { path, offset = 0, max_bytes }: { path: string; offset?: number | undefined; max_bytes?: number | undefined },
  whole: Uint8Array,
): CallToolResult {
  const { length: size } = whole;
  const facts = { path: pathOf(path), size, offset };
  const mimeType = imageType(whole);
  if (mimeType !== null && offset === 0 && max_bytes === undefined && size <= MAX_READ_BYTES) {
    const data = Buffer.from(whole).toString("base64");
    return {
      content: [{ type: "image", data, mimeType }],
      structuredContent: { ...facts, bytes: size, encoding: "image" },
    };
  }
  const part = whole.subarray(offset, offset + (max_bytes ?? DEFAULT_READ_BYTES));
  // A cut may be inside of a character, of which UTF-8 has four bytes at the most.
  const text = [0, 1, 2, 3]
    .map((less) => part.subarray(0, Math.max(0, part.length - less)))
    .find((bytes) => isUtf8(bytes));
  const isWhole = offset + part.length >= size;
  if (text === undefined || !isText(text) || (isWhole && text.length < part.length)) {
    const content = Buffer.from(part).toString("base64");
    return structured({ ...facts, bytes: part.length, encoding: "base64", content }, content);
  }
  const content = Buffer.from(text).toString("utf8");
  const end = offset + text.length;
  const rest = end < size ? `\n… (bytes ${offset} to ${end} of ${size}; go on with offset ${end})` : "";
  return structured({ ...facts, bytes: text.length, encoding: "utf-8", content }, content + rest || "(empty)");
}

/**
 * Whether a content is shown as a text: it is UTF-8 and has no NUL, and few of its bytes are control characters. JSON has six characters for each of
 * these, and a result is written in one go.
 */
export function isText(content: Uint8Array): boolean {
  if (!isUtf8(content) || content.includes(0)) return false;
  let controls = 0;
  for (const byte of content)
    if (byte < 0x20 && byte !== TAB && byte !== LINE_FEED && byte !== CARRIAGE_RETURN) controls++;
  return controls <= content.length / 4;
}

/** By its first bytes. */
export function imageType(content: Uint8Array): string | null {
  const head = Buffer.from(content.subarray(0, 12)).toString("latin1");
  if (head.startsWith("\x89PNG\r\n\x1a\n")) return "image/png";
  if (head.startsWith("\xff\xd8\xff")) return "image/jpeg";
  if (/^GIF8[79]a/.test(head)) return "image/gif";
  return /^RIFF....WEBP/s.test(head) ? "image/webp" : null;
}
