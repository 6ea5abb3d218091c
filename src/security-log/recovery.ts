import fs from "node:fs";
import path from "node:path";
import type { SecurityEvent } from "./event.ts";
import {
  archiveName,
  CURRENT_FILE,
  EMPTY_HEAD,
  type Head,
  hashLine,
  listLogFiles,
  MAX_LINE_BYTES,
  parseLine,
  readHead,
} from "./log-files.ts";

export interface Recovery {
  /** Where the chain goes on; `size` is the current file's length. */
  readonly head: Head;
  /** What was found wrong, to be written before anything else. */
  readonly findings: readonly SecurityEvent[];
}

const NEWLINE = 0x0a;
/** How much of a file is searched for its last line when the head is gone. */
const TAIL_BYTES = 2 * MAX_LINE_BYTES;

/**
 * Finds the end of the log in `dir`, which exists, and makes it fit to be written to.
 *
 * Lines that the head does not know are taken over if they go on with the chain, since a crash leaves such. A last line
 * without newline was never reported as written: it is cut off, and what there was of it becomes a finding. Anything
 * else was done from outside: it is left as it is, the chain goes on from the last line that is vouched for, and so the
 * damage stays visible to `verifySecurityLog` for ever.
 *
 * @param known the end as this process left it; without it, the head file says.
 */
export function recoverSecurityLog(dir: string, known?: Head): Recovery {
  const findings: SecurityEvent[] = [];
  const head = known ?? readHead(dir) ?? headFromLastLine(dir, findings);
  // A crash between renaming a full file and beginning the next leaves a head that speaks of the renamed one.
  const rotated = fs.existsSync(path.join(dir, archiveName(head.first)));
  const file = path.join(dir, rotated ? archiveName(head.first) : CURRENT_FILE);
  const end = findEnd(file, head, findings);
  if (!rotated) return { head: { ...end, open: true }, findings };
  const size = fs.statSync(path.join(dir, CURRENT_FILE), { throwIfNoEntry: false })?.size ?? 0;
  if (size > 0) findings.push(damaged(`${CURRENT_FILE} holds lines of which nothing is known`));
  return { head: { ...end, first: end.seq + 1, offset: size, size, open: true }, findings };
}

function findEnd(file: string, head: Head, findings: SecurityEvent[]): Head {
  const fileBytes = fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  const tail = readFrom(file, fileBytes < head.size ? endOfLastLine(file, fileBytes) : head.offset, fileBytes);
  const tailStart = fileBytes - tail.length;
  let { seq, hash, offset } = head;
  let size = tailStart;
  let expectsHead = head.size > head.offset;
  let intact = true;
  for (let newline = tail.indexOf(NEWLINE); newline !== -1; newline = tail.indexOf(NEWLINE, size - tailStart)) {
    const line = tail.subarray(size - tailStart, newline);
    const lineHash = hashLine(line);
    if (expectsHead) {
      intact = lineHash === head.hash;
      expectsHead = false;
    } else {
      const parsed = head.open && intact ? parseLine(line) : undefined;
      if (parsed?.seq === seq + 1 && parsed.previous === hash) {
        seq = parsed.seq;
        hash = lineHash;
        offset = size;
      } else {
        intact = false;
      }
    }
    size = tailStart + newline + 1;
  }
  if (size < fileBytes) {
    const torn = tail.subarray(size - tailStart);
    findings.push(
      finding("log_recovered", { tornBytes: torn.length, tornHash: hashLine(torn), torn: torn.toString() }),
    );
    fs.truncateSync(file, size);
  }
  if (fileBytes < head.size || expectsHead) findings.push(damaged(`the end of ${CURRENT_FILE} was removed`));
  else if (!intact) findings.push(damaged(`the end of ${CURRENT_FILE} was changed`));
  return intact && !expectsHead ? { ...head, seq, hash, offset, size } : { ...head, seq, hash, offset: size, size };
}

function headFromLastLine(dir: string, findings: SecurityEvent[]): Head {
  const files = listLogFiles(dir);
  for (const { name } of files.toReversed()) {
    const file = path.join(dir, name);
    const fileBytes = fs.statSync(file).size;
    const lines = splitLines(readFrom(file, Math.max(0, fileBytes - TAIL_BYTES), fileBytes));
    const last = lines.findLast((line) => parseLine(line) !== undefined);
    if (last === undefined) continue;
    findings.push(damaged("security.log.head is missing or not readable"));
    const { seq } = parseLine(last) as { seq: number };
    const isCurrent = name === CURRENT_FILE;
    const first = isCurrent ? (parseLine(lines[0] as Buffer)?.seq ?? seq + 1) : seq + 1;
    const size = isCurrent ? endOfLastLine(file, fileBytes) : 0;
    return { first, seq, hash: hashLine(last), offset: size, size, open: true };
  }
  return EMPTY_HEAD;
}

/** Complete lines only. */
function splitLines(bytes: Buffer): Buffer[] {
  const lines: Buffer[] = [];
  let start = 0;
  for (let newline = bytes.indexOf(NEWLINE); newline !== -1; newline = bytes.indexOf(NEWLINE, start)) {
    lines.push(bytes.subarray(start, newline));
    start = newline + 1;
  }
  return lines;
}

/** Bytes up to and with the last newline. */
function endOfLastLine(file: string, fileBytes: number): number {
  const start = Math.max(0, fileBytes - TAIL_BYTES);
  return start + readFrom(file, start, fileBytes).lastIndexOf(NEWLINE) + 1;
}

function readFrom(file: string, startBytes: number, endBytes: number): Buffer {
  const bytes = Buffer.alloc(endBytes - startBytes);
  if (bytes.length === 0) return bytes;
  const fd = fs.openSync(file, "r");
  try {
    let read = 0;
    while (read < bytes.length) {
      const count = fs.readSync(fd, bytes, read, bytes.length - read, startBytes + read);
      if (count === 0) break;
      read += count;
    }
    return bytes.subarray(0, read);
  } finally {
    fs.closeSync(fd);
  }
}

export function finding(event: SecurityEvent["event"], details: SecurityEvent["details"]): SecurityEvent {
  return { event, ip: null, userAgent: null, requestId: null, principal: null, details };
}

const damaged = (reason: string) => finding("log_damaged", { reason });
