import { hash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { z } from "zod";
import type { SecurityLogLine } from "./event.ts";

/**
 * How the security log lies in its folder:
 *
 *     security.log.000000000001   full files, named for the number (`seq`) of their first line; never renamed again
 *     security.log.000000028411
 *     security.log                the file that is written to
 *     security.log.head           what is known of the last line, so that cutting lines off the end shows
 */
export const CURRENT_FILE = "security.log";
export const HEAD_FILE = "security.log.head";

/** Longer than any line the log writes: that of 10 MiB of code in base64. */
export const MAX_LINE_BYTES = 16 * 1024 * 1024;

/** `previous` of the first line there ever was. */
export const CHAIN_START = "0".repeat(64);

const headSchema = z.object({
  /** `seq` of the first line of the file that `offset` and `size` speak of. */
  first: z.number().int().min(1),
  /** Last line known to be on the disk, and its SHA-256 hex; 0 and 64 zeros before there is one. */
  seq: z.number().int().min(0),
  hash: z.string().length(64),
  /** Bytes before that line in its file, and up to its end. Equal while the file is empty. */
  offset: z.number().int().min(0),
  size: z.number().int().min(0),
  /** True while a server may add lines that the head does not know yet. */
  open: z.boolean(),
});

export type Head = z.infer<typeof headSchema>;

export const EMPTY_HEAD: Head = { first: 1, seq: 0, hash: CHAIN_START, offset: 0, size: 0, open: true };

/** @returns undefined if there is none, or it is not readable as one. */
export function readHead(dir: string): Head | undefined {
  const text = readIfThere(path.join(dir, HEAD_FILE));
  if (text === undefined) return undefined;
  try {
    return headSchema.safeParse(JSON.parse(text.toString())).data;
  } catch {
    return undefined;
  }
}

/** Replaces the head at once, so that a crash leaves the old one or the new one. */
export function writeHead(dir: string, head: Head): void {
  const temporary = path.join(dir, `${HEAD_FILE}.tmp`);
  fs.writeFileSync(temporary, `${JSON.stringify(head)}\n`, { mode: 0o600 });
  fs.renameSync(temporary, path.join(dir, HEAD_FILE));
}

/** The name of a full file whose first line is number `first`. */
export const archiveName = (first: number): string => `${CURRENT_FILE}.${String(first).padStart(12, "0")}`;

/** The number of a full file's first line, by its name. */
export const firstOfArchive = (name: string): number => Number(name.slice(CURRENT_FILE.length + 1));

/** The log's files, oldest first, with the number of their first line as far as the name tells it. */
export function listLogFiles(dir: string): { readonly name: string; readonly first: number | null }[] {
  const names = fs.existsSync(dir) ? fs.readdirSync(dir) : [];
  const archives = names
    .filter((name) => /^security\.log\.\d{12,16}$/.test(name))
    .map((name) => ({ name, first: firstOfArchive(name) }))
    .sort((a, b) => a.first - b.first);
  return names.includes(CURRENT_FILE) ? [...archives, { name: CURRENT_FILE, first: null }] : archives;
}

const lineSchema = z.object({
  timestamp: z.string(),
  level: z.literal("SECURITY"),
  event: z.string(),
  details: z.record(z.string(), z.unknown()),
  seq: z.number().int().min(1),
  previous: z.string(),
});

/** @returns undefined for bytes that are not a line of the log. */
export function parseLine(
  line: Uint8Array,
): (Pick<SecurityLogLine, "seq" | "previous"> & { event: string; details: Record<string, unknown> }) | undefined {
  try {
    return lineSchema.safeParse(JSON.parse(Buffer.from(line.buffer, line.byteOffset, line.length).toString())).data;
  } catch {
    return undefined;
  }
}

export const hashLine = (line: string | Uint8Array): string => hash("sha256", line, "hex");

export function readIfThere(file: string): Buffer | undefined {
  try {
    return fs.readFileSync(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Makes names in a folder, not only files' contents, survive a power cut. */
export function syncFolder(dir: string): void {
  const fd = fs.openSync(dir, "r");
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}
