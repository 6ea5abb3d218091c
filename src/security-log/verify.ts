import fs from "node:fs";
import path from "node:path";
import {
  archiveName,
  CHAIN_START,
  CURRENT_FILE,
  HEAD_FILE,
  type Head,
  hashLine,
  listLogFiles,
  parseLine,
  readHead,
} from "./log-files.ts";
import { type Line, readLines } from "./log-lines.ts";
import type { Seal } from "./seal.ts";

export type Verification =
  | {
      readonly ok: true;
      readonly lines: number;
      /** Names, oldest first. */
      readonly files: readonly string[];
      /** `seq` of the first line; above 1: files before it are not in the folder. Null without lines. */
      readonly firstSeq: number | null;
      /** Lines up to this one the log itself has deleted, and its chain says so; 0: none. */
      readonly sealedToSeq: number;
      /** Noted elsewhere, this hash proves all lines up to now; null without lines. */
      readonly head: { readonly seq: number; readonly hash: string } | null;
      /** `log_…` events: what the log itself reported about crashes, gaps and damage. */
      readonly notes: readonly Note[];
    }
  | {
      readonly ok: false;
      readonly file: string;
      /** 1-based line of that file: the first that is not what was written there. 0: the file as a whole. */
      readonly line: number;
      readonly reason: string;
    };

export interface Note {
  readonly file: string;
  readonly line: number;
  readonly event: string;
  readonly details: Readonly<Record<string, unknown>>;
}

/**
 * Walks the security log in `dir`, rotated files first, and checks every line against its neighbours and the head.
 *
 * It tells any change unless the chain was written anew from there to the end, head file included. Against that,
 * keep `head` of an earlier verification elsewhere.
 *
 * @throws if the folder or a file in it cannot be read.
 */
export async function verifySecurityLog(dir: string): Promise<Verification> {
  for (let attempt = 0; ; attempt++) {
    const head = readHead(dir);
    const verification = await verifyOnce(dir, head).catch((error) => {
      // Or one that the log has deleted.
      if (error.code === "ENOENT" && attempt < 3) return null;
      throw error;
    });
    if (verification === null) continue;
    // A file that was rotated while we read made it look broken.
    if (verification.ok || attempt === 3 || readHead(dir)?.first === head?.first) return verification;
  }
}

interface LogFile {
  readonly name: string;
  /** `seq` of the line it begins with; null: not known. */
  readonly first: number | null;
}

interface ParsedLine extends Line {
  readonly hash: string;
  readonly seq: number;
  readonly previous: string;
}

async function verifyOnce(dir: string, head: Head | undefined): Promise<Verification> {
  const files: LogFile[] = listLogFiles(dir).map(({ name, first }) => ({
    name,
    first: first ?? currentFirst(dir, head),
  }));
  const removed = head && head.size > 0 && currentFirst(dir, head) !== null && files.at(-1)?.name !== CURRENT_FILE;
  const places = removed ? [...files, { name: CURRENT_FILE, first: head.first }] : files;
  const lines = readLines(dir, files);
  const notes: Note[] = [];
  let count = 0;
  let first: ParsedLine | undefined;
  let sealed: Seal | undefined;
  let beforeLast: ParsedLine | undefined;
  let last: ParsedLine | undefined;

  for await (const line of lines) {
    const expected = last ? last.seq + 1 : (files[0]?.first ?? 1);
    const parsed = parseLine(line.bytes);
    // Being written right now, or cut off by a crash: no caller was told that it had been written.
    if (!line.complete && head?.open && expected > head.seq && line.file === files.at(-1)?.name) break;
    if (!line.complete || parsed === undefined) return broken(line, "is not a line of the log");

    const current = { ...line, hash: hashLine(line.bytes), seq: parsed.seq, previous: parsed.previous };
    const previous = last ? last.hash : expected === 1 ? CHAIN_START : current.previous;
    const follows = current.previous === previous;
    if (follows && current.seq !== expected) return broken(line, `was changed: its number is not ${expected}`);
    if (!follows && current.seq > expected) return missing(places, last, line, expected, current.seq - 1);
    if (!follows) {
      const next = await peek(lines);
      return broken(blame(beforeLast, last, current, next, head), "was changed, moved or added");
    }
    if (current.seq === head?.seq && current.hash !== head.hash) return broken(line, "was changed");
    if (head && !head.open && current.seq > head.seq) return broken(line, "was added after the log was closed");
    first ??= current;
    if (parsed.event === "log_sealed") {
      const seal = parsed.details as unknown as Seal;
      if (seal.intact !== true) return broken(line, "says that lines had been changed before the log deleted them");
      const isWrong =
        (seal.toSeq === first.seq - 1 && seal.lastHash !== first.previous) ||
        (seal.fromSeq - 1 === sealed?.toSeq && seal.before !== sealed.lastHash);
      if (isWrong) return broken(line, "does not fit the lines that the log deleted, or the first that is left");
      sealed = seal;
    }
    if (parsed.event.startsWith("log_")) {
      notes.push({ file: line.file, line: line.number, event: parsed.event, details: parsed.details });
    }
    count++;
    beforeLast = last;
    last = current;
  }

  if (last !== undefined && head === undefined) {
    return { ok: false, file: HEAD_FILE, line: 0, reason: "is missing or not readable" };
  }
  const end = last ? last.seq : (places[0]?.first ?? 1) - 1;
  if (head && head.seq > end) return missing(places, last, undefined, end + 1, head.seq);
  return {
    ok: true,
    lines: count,
    files: files.map(({ name }) => name),
    firstSeq: first?.seq ?? null,
    sealedToSeq: sealed?.toSeq ?? 0,
    head: last ? { seq: last.seq, hash: last.hash } : null,
    notes,
  };
}

/** The number of the current file's first line, which only the head tells; null if the head speaks of another file. */
function currentFirst(dir: string, head: Head | undefined): number | null {
  return head && !fs.existsSync(path.join(dir, archiveName(head.first))) ? head.first : null;
}

/**
 * Two neighbours do not fit, the second having the right number or a smaller one: the one that another line or the head
 * vouches for is right, the other one is not.
 */
function blame(
  beforeLast: ParsedLine | undefined,
  last: ParsedLine | undefined,
  current: ParsedLine,
  next: { readonly previous: string } | undefined,
  head: Head | undefined,
): Line {
  const vouched = next?.previous === current.hash || head?.hash === current.hash;
  if (last === undefined || !vouched || last.hash === current.hash || last.hash === head?.hash) return current;
  const tookItsPlace = current.seq === last.seq && current.previous === (beforeLast?.hash ?? last.previous);
  return current.seq === last.seq + 1 || tookItsPlace ? last : current;
}

async function peek(lines: AsyncIterator<Line>): Promise<{ readonly previous: string } | undefined> {
  const next = await lines.next();
  return next.done ? undefined : parseLine(next.value.bytes);
}

const broken = ({ file, number }: Pick<Line, "file" | "number">, reason: string): Verification => ({
  ok: false,
  file,
  line: number,
  reason,
});

/** Lines `from` to `to` are not there: broken where the first of them should stand. */
function missing(
  files: readonly LogFile[],
  last: Line | undefined,
  next: Line | undefined,
  from: number,
  to: number,
): Verification {
  const reason =
    from === to ? `line with number ${from} is missing` : `lines with numbers ${from} to ${to} are missing`;
  const home = files.findLast(({ first }) => first !== null && first <= from)?.name ?? next?.file ?? last?.file;
  const file = home ?? CURRENT_FILE;
  return broken({ file, number: last?.file === file ? last.number + 1 : 1 }, reason);
}
