import fs from "node:fs";
import path from "node:path";
import fc from "fast-check";
import { beforeAll, expect, test, vi } from "vitest";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import { hashLine } from "./log-files.ts";
import { SecurityLog } from "./security-log.ts";
import { verifySecurityLog } from "./verify.ts";

// Properties and processes take their time on a busy machine; nothing here waits for a clock.
vi.setConfig({ testTimeout: 60_000 });

const NEWLINE = 0x0a;

/** The log as it was written: five files, so that every kind of place is met: first, middle and last of a file. */
let original: string;
/** Complete lines with their newline, by file, oldest first. */
let files: { readonly name: string; readonly lines: readonly Buffer[] }[];
let tampered: string;

beforeAll(async () => {
  original = temporaryFolder("verify-original");
  tampered = temporaryFolder("verify-tampered");
  const log = new SecurityLog({ dir: original, maxBytes: 1500 });
  for (let i = 0; i < 26; i++) {
    log.append({
      event: i % 3 === 0 ? "code_execution_error" : "code_execution",
      ip: "192.0.2.1",
      userAgent: "agent",
      requestId: `r${i}`,
      principal: "p",
      details: { success: i % 3 !== 0 },
    });
  }
  await log.close();
  const verification = await verifySecurityLog(original);
  if (!verification.ok) throw new Error(verification.reason);
  files = verification.files.map((name) => ({ name, lines: split(fs.readFileSync(path.join(original, name))) }));
  expect(files.length).toBeGreaterThanOrEqual(5);
});

function split(bytes: Buffer): Buffer[] {
  const lines: Buffer[] = [];
  let start = 0;
  for (let end = bytes.indexOf(NEWLINE); end !== -1; end = bytes.indexOf(NEWLINE, start)) {
    lines.push(bytes.subarray(start, end + 1));
    start = end + 1;
  }
  return start < bytes.length ? [...lines, bytes.subarray(start)] : lines;
}

type Log = { readonly name: string; readonly lines: Buffer[] }[];

/** Writes a changed copy and verifies it; it must name the first line that differs from what was written there. */
async function expectBrokenAtFirstDifference(change: (log: Log) => void) {
  const changed: Log = files.map(({ name, lines }) => ({ name, lines: lines.map((line) => Buffer.from(line)) }));
  change(changed);
  fs.rmSync(tampered, { recursive: true });
  fs.cpSync(original, tampered, { recursive: true });
  for (const { name, lines } of changed) fs.writeFileSync(path.join(tampered, name), Buffer.concat(lines));
  const difference = firstDifference();
  fc.pre(difference !== undefined);
  const verification = await verifySecurityLog(tampered);
  expect(verification).toMatchObject({ ok: false, ...difference });
}

function firstDifference(): { file: string; line: number } | undefined {
  for (const { name, lines } of files) {
    const now = split(fs.readFileSync(path.join(tampered, name)));
    for (let i = 0; i < Math.max(lines.length, now.length); i++) {
      if (!lines[i] || !now[i] || !(lines[i] as Buffer).equals(now[i] as Buffer)) return { file: name, line: i + 1 };
    }
  }
  return undefined;
}

/** A place in the log: a file and a line of it. */
const place = () => fc.tuple(fc.nat(), fc.nat());
function at(log: Log, [file, line]: readonly [number, number]) {
  const { lines } = log[file % log.length] as Log[number];
  return { lines, index: line % lines.length };
}

test("one changed byte is named with its line", () =>
  fc.assert(
    fc.asyncProperty(place(), fc.nat(), fc.integer({ min: 1, max: 255 }), (where, byte, mask) =>
      expectBrokenAtFirstDifference((log) => {
        const { lines, index } = at(log, where);
        const line = lines[index] as Buffer;
        const position = byte % line.length;
        line[position] = (line[position] as number) ^ mask;
      }),
    ),
    { numRuns: 600 },
  ));

test("a removed line is named where it should stand", () =>
  fc.assert(
    fc.asyncProperty(place(), (where) =>
      expectBrokenAtFirstDifference((log) => {
        const { lines, index } = at(log, where);
        lines.splice(index, 1);
      }),
    ),
    { numRuns: 100 },
  ));

test("several lines removed in a row, to a file's end or beyond it", () =>
  fc.assert(
    fc.asyncProperty(fc.nat(25), fc.integer({ min: 1, max: 20 }), (from, count) =>
      expectBrokenAtFirstDifference((log) => {
        let index = 0;
        for (const file of log) {
          const kept = file.lines.filter(() => {
            const inside = index >= from && index < from + count;
            index++;
            return !inside;
          });
          file.lines.splice(0, file.lines.length, ...kept);
        }
      }),
    ),
    { numRuns: 100 },
  ));

test("two lines that changed places", () =>
  fc.assert(
    fc.asyncProperty(place(), place(), (one, other) =>
      expectBrokenAtFirstDifference((log) => {
        const a = at(log, one);
        const b = at(log, other);
        const line = a.lines[a.index] as Buffer;
        a.lines[a.index] = b.lines[b.index] as Buffer;
        b.lines[b.index] = line;
      }),
    ),
    { numRuns: 200 },
  ));

test("a line that was put in: a copy of another, nonsense, or one made to fit the line before", () =>
  fc.assert(
    fc.asyncProperty(place(), place(), fc.constantFrom("copy", "nonsense", "forged"), (where, source, kind) =>
      expectBrokenAtFirstDifference((log) => {
        const copy = Buffer.from(at(log, source).lines[at(log, source).index] as Buffer);
        const { lines, index } = at(log, where);
        if (kind === "copy") lines.splice(index, 0, copy);
        else if (kind === "nonsense") lines.splice(index, 0, Buffer.from("nothing happened here\n"));
        else lines.splice(index, 0, forge(lines[index] as Buffer));
      }),
    ),
    { numRuns: 300 },
  ));

test("a line made to fit at the end of a log that was closed", () =>
  expectBrokenAtFirstDifference((log) => {
    const { lines } = log.at(-1) as Log[number];
    const last = lines.at(-1) as Buffer;
    const line = JSON.parse(last.toString());
    lines.push(
      Buffer.from(`${JSON.stringify({ ...line, seq: line.seq + 1, previous: hashLine(last.subarray(0, -1)) })}\n`),
    );
  }));

/** Another event with the place, number and predecessor of a real one. */
function forge(line: Buffer): Buffer {
  return Buffer.from(`${JSON.stringify({ ...JSON.parse(line.toString()), principal: "mallory" })}\n`);
}

test("a line changed together with the hash that the next one carries is named there", async () => {
  const log = files.map(({ name, lines }) => ({ name, lines: [...lines] }));
  const { lines } = log[1] as Log[number];
  lines[0] = forge(lines[0] as Buffer);
  const second = JSON.parse((lines[1] as Buffer).toString());
  second.previous = hashLine((lines[0] as Buffer).subarray(0, -1));
  lines[1] = Buffer.from(`${JSON.stringify(second)}\n`);
  fs.rmSync(tampered, { recursive: true });
  fs.cpSync(original, tampered, { recursive: true });
  fs.writeFileSync(path.join(tampered, log[1]?.name as string), Buffer.concat(lines));
  expect(await verifySecurityLog(tampered)).toMatchObject({ ok: false, file: log[1]?.name, line: 2 });
});

test.each(["removed", "emptied", "from another log"])("a head that is %s is told", async (kind) => {
  fs.rmSync(tampered, { recursive: true });
  fs.cpSync(original, tampered, { recursive: true });
  const file = path.join(tampered, "security.log.head");
  const head = JSON.parse(fs.readFileSync(file, "utf8"));
  if (kind === "removed") fs.rmSync(file);
  else fs.writeFileSync(file, kind === "emptied" ? "" : JSON.stringify({ ...head, hash: "f".repeat(64) }));
  expect(await verifySecurityLog(tampered)).toMatchObject({ ok: false });
});

test("damage does not heal by a restart", async () => {
  const changes: ((file: string) => void)[] = [
    (file) => fs.truncateSync(file, fs.statSync(file).size - 1),
    (file) => fs.truncateSync(file, 0),
    (file) => fs.rmSync(file),
    (file) => fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace(/"ip":"[^"]*"(?!.*"ip")/s, '"ip":"::1"')),
    (file) => fs.appendFileSync(file, forge(files.at(-1)?.lines.at(-1) as Buffer)),
  ];
  for (const change of changes) {
    fs.rmSync(tampered, { recursive: true });
    fs.cpSync(original, tampered, { recursive: true });
    change(path.join(tampered, "security.log"));
    const before = await verifySecurityLog(tampered);
    expect(before.ok).toBe(false);
    const log = new SecurityLog({ dir: tampered, maxBytes: 1_000_000 });
    expect(log.healthy).toBe(true);
    await log.close();
    const after = await verifySecurityLog(tampered);
    expect(after).toMatchObject({ ok: false, file: "security.log" });
    if (!before.ok && !after.ok) expect(after.line).toBe(before.line);
    expect(fs.readFileSync(path.join(tampered, "security.log"), "utf8")).toContain('"event":"log_damaged"');
  }
});

test("an empty or missing folder holds a log without lines", async () => {
  const empty = { ok: true, lines: 0, files: [], firstSeq: null, sealedToSeq: 0, head: null, notes: [] };
  expect(await verifySecurityLog(path.join(tampered, "none"))).toEqual(empty);
});
