import fs from "node:fs";
import path from "node:path";
import { hashLine, listLogFiles, parseLine } from "./log-files.ts";
import { readLines } from "./log-lines.ts";

/** What a `log_sealed` event says of a file that is gone. */
export interface Seal {
  readonly file: string;
  readonly fromSeq: number;
  /** SHA-256 hex of the line before its first. */
  readonly before: string;
  /** Number of the last line that is gone, and so how many are: numbers begin with 1. */
  readonly toSeq: number;
  /** SHA-256 hex of that line, which the line after it has as `previous`. */
  readonly lastHash: string;
  readonly bytes: number;
  /** Every line of the file went on with the chain, up to the file after it. */
  readonly intact: boolean;
}

/** Full files that have to go, oldest first, so that no more than `maxBytes` are left. */
export function filesToSeal(dir: string, maxBytes: number): readonly string[] {
  const archives = listLogFiles(dir).filter(({ first }) => first !== null);
  const sizes = archives.map(({ name }) => fs.statSync(path.join(dir, name)).size);
  let excess = sizes.reduce((sum, size) => sum + size, 0) - maxBytes;
  const files: string[] = [];
  for (const [i, { name }] of archives.entries()) {
    if (excess <= 0) break;
    files.push(name);
    excess -= sizes[i] as number;
  }
  return files;
}

/**
 * Reads a full file to the end, so that what is said of it is true after it is gone.
 *
 * @param next `previous` of the line after its last; undefined: not known.
 * @returns null if there is no line of the log in it.
 */
export async function sealOf(dir: string, name: string, next: string | undefined): Promise<Seal | null> {
  let first: { seq: number; previous: string } | undefined;
  let last: { seq: number; hash: string } | undefined;
  let intact = true;
  for await (const line of readLines(dir, [{ name }])) {
    const parsed = parseLine(line.bytes);
    if (!line.complete || parsed === undefined) {
      intact = false;
      continue;
    }
    if (last !== undefined && (parsed.previous !== last.hash || parsed.seq !== last.seq + 1)) intact = false;
    // What it says of files before it must not go with it.
    if (parsed.event === "log_sealed" && parsed.details.intact !== true) intact = false;
    first ??= { seq: parsed.seq, previous: parsed.previous };
    last = { seq: parsed.seq, hash: hashLine(line.bytes) };
  }
  if (first === undefined || last === undefined) return null;
  if (next !== undefined && next !== last.hash) intact = false;
  const { size: bytes } = fs.statSync(path.join(dir, name));
  const { seq: fromSeq, previous: before } = first;
  return { file: name, fromSeq, before, toSeq: last.seq, lastHash: last.hash, bytes, intact };
}

/** `previous` of a file's first line; undefined if it has none. */
export async function previousOf(dir: string, name: string): Promise<string | undefined> {
  for await (const { bytes } of readLines(dir, [{ name }])) return parseLine(bytes)?.previous;
  return undefined;
}
