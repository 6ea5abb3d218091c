import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import { type CodeEventName, codeDetails, type RequestEvent } from "./event.ts";
import { SecurityLog, type SecurityLogOptions } from "./security-log.ts";
import { verifySecurityLog } from "./verify.ts";

// Properties and processes take their time on a busy machine; nothing here waits for a clock.
vi.setConfig({ testTimeout: 60_000 });

let dir: string;
const opened: SecurityLog[] = [];

beforeEach(() => {
  dir = temporaryFolder("security-log");
});

afterEach(async () => {
  for (const log of opened.splice(0)) await log.close();
});

function open(options: Partial<SecurityLogOptions> = {}): SecurityLog {
  const log = new SecurityLog({ dir, maxBytes: 1_000_000, ...options });
  opened.push(log);
  return log;
}

const event = (changes: Partial<RequestEvent> = {}): RequestEvent => ({
  event: "code_execution",
  ip: "192.0.2.7",
  userAgent: "curl/8.9",
  requestId: "8e2f",
  principal: "alice",
  details: { success: true, executionTime: 3 },
  ...changes,
});

const current = () => path.join(dir, "security.log");
const readLines = (file = current()) => fs.readFileSync(file, "utf8").split("\n").slice(0, -1);
const parsedLines = () => readLines().map((line) => JSON.parse(line));

/** A process of its own that appends lines until it is killed; `tell` runs in it for each line. */
function startWriter(script: string, wrapper: readonly string[] = []) {
  const module = JSON.stringify(path.join(import.meta.dirname, "security-log.ts"));
  const source = `
    import { SecurityLog } from ${module};
    const event = ${JSON.stringify(event())};
    const dir = ${JSON.stringify(dir)};
    ${script}`;
  const [command, ...args] = [...wrapper, process.execPath, "--input-type=module-typescript", "-e", source];
  const child = spawn(command as string, args, { stdio: ["pipe", "pipe", "inherit"] });
  return { child, output: createInterface({ input: child.stdout }) };
}

describe("lines", () => {
  test("say what the contract says, each with the hash of the line before", async () => {
    const log = open({ now: () => Date.UTC(2026, 0, 2, 3, 4, 5, 678) });
    expect(await log.append(event({ details: { success: true, ...codeDetails("1+1", false) } }))).toBe(true);
    expect(await log.append(event({ event: "auth_failure", principal: null, userAgent: null, details: {} }))).toBe(
      true,
    );

    const [first, second] = readLines();
    expect(JSON.parse(first as string)).toEqual({
      timestamp: "2026-01-02T03:04:05.678Z",
      level: "SECURITY",
      event: "code_execution",
      ip: "192.0.2.7",
      userAgent: "curl/8.9",
      requestId: "8e2f",
      principal: "alice",
      details: { success: true, codeHash: createHash("sha256").update("1+1").digest("hex"), codeLength: 3 },
      seq: 1,
      previous: "0".repeat(64),
    });
    expect(JSON.parse(second as string)).toMatchObject({
      event: "auth_failure",
      seq: 2,
      previous: createHash("sha256")
        .update(first as string)
        .digest("hex"),
    });
  });

  test("hash the exact bytes of the code, and hold the code only if asked to", () => {
    const code = "print('ä\r\n')";
    const codeHash = createHash("sha256").update(Buffer.from(code, "utf8")).digest("hex");
    expect(codeDetails(code, false)).toEqual({ codeHash, codeLength: 12 });
    expect(codeDetails(code, true)).toEqual({ codeHash, codeLength: 12, code });
  });

  test("cannot be forged through any field, nor act on a terminal", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          userAgent: fc.string({ unit: "binary" }),
          ip: fc.constantFrom('1.2.3.4"}\n{"level":"SECURITY"}', "\u2028\u2029\u0085\u009b31m", "\u202e\u2066\ufeff"),
          filename: fc.string({
            unit: fc.constantFrom("\n", "\r", "\u001b[2J", "\u202e", '"', "\\", "\0", "é", "\ud800"),
          }),
        }),
        async ({ userAgent, ip, filename }) => {
          fs.rmSync(dir, { recursive: true });
          const log = open();
          log.append(event({ userAgent, ip, details: { filename } }));
          await log.close();
          const text = fs.readFileSync(current(), "utf8");
          expect(text.match(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu)).toEqual(["\n"]);
          expect(parsedLines()).toHaveLength(1);
          expect(parsedLines()[0]).toMatchObject({ userAgent, ip, details: { filename } });
        },
      ),
      { numRuns: 60 },
    );
  });

  test("have a bounded length, whatever a client sends", async () => {
    const log = open();
    const longest = (text: string) => ({
      userAgent: text.repeat(1e5),
      ip: text.repeat(1e5),
      requestId: text.repeat(1e5),
      principal: text.repeat(1e5),
      details: { path: text.repeat(1e5), error: text.repeat(1e5) },
    });
    for (const text of ["a", "\0", "\u{e0001}", '"', "é", "\ud800"]) log.append(event(longest(text)));
    await log.sync();
    for (const line of readLines()) expect(Buffer.byteLength(line)).toBeLessThan(3500);
    expect(parsedLines()[1].userAgent).toMatch(/^\0{42}…$/);
  });

  test("hold 10 MiB of code whole, as base64, and quickly", async () => {
    const log = open();
    for (const text of ["a", "\0", "é\u2028"]) {
      const bytes = Buffer.from(text.repeat((10 * 2 ** 20) / Buffer.byteLength(text)));
      const details = codeDetails(bytes.toString(), true, bytes);
      expect(await log.append(event({ details }))).toBe(true);
      const line = parsedLines().at(-1);
      expect(createHash("sha256").update(Buffer.from(line.codeBase64, "base64")).digest("hex")).toBe(details.codeHash);
      expect(line.codeBase64.length).toBeLessThan(14 * 2 ** 20);
    }
    await log.close();
    expect(await verifySecurityLog(dir)).toMatchObject({ ok: true, lines: 3 });
    // Also where the end has to be found without the head.
    fs.rmSync(path.join(dir, "security.log.head"));
    const reopened = open();
    expect(await reopened.append(event())).toBe(true);
    expect(parsedLines().at(-1).seq).toBe(5);
  });
});

describe("the size of all files", () => {
  const TOTAL = 20_000;
  const fill = async (log: SecurityLog, lines: number) => {
    for (let i = 0; i < lines; i++) {
      log.append(event());
      // Files are deleted meanwhile, as between requests.
      if (i % 10 === 0) await new Promise(setImmediate);
    }
  };
  const totalBytes = () =>
    fs
      .readdirSync(dir)
      .filter((name) => /^security\.log(\.\d+)?$/.test(name))
      .reduce((sum, name) => sum + fs.statSync(path.join(dir, name)).size, 0);
  const bounded = { maxBytes: 2000, maxTotalBytes: TOTAL };

  test("stays below its limit: the oldest are deleted, counted, and the chain still says what was there", async () => {
    const log = open(bounded);
    for (let round = 0; round < 10; round++) {
      await fill(log, 100);
      await vi.waitFor(() => expect(totalBytes()).toBeLessThanOrEqual(TOTAL + 2000), { timeout: 20_000 });
    }
    await log.close();
    const verification = await verifySecurityLog(dir);
    if (!verification.ok) throw new Error(`${verification.file}:${verification.line} ${verification.reason}`);
    expect(verification.firstSeq).toBeGreaterThan(800);
    expect(verification.sealedToSeq).toBe(Number(verification.firstSeq) - 1);
    // Of all that was written, nothing is missing.
    const seals = verification.notes.filter(({ event }) => event === "log_sealed");
    expect(verification.sealedToSeq + verification.lines).toBe(verification.head?.seq);
    expect(seals.length).toBeGreaterThan(0);
    // And it goes on after a restart.
    const reopened = open(bounded);
    await fill(reopened, 100);
    await reopened.close();
    expect(await verifySecurityLog(dir)).toMatchObject({ ok: true });
  });

  test("a beginning that was removed from outside is not what the log says it has", async () => {
    const log = open(bounded);
    await fill(log, 500);
    await log.close();
    const names = fs.readdirSync(dir).filter((name) => /^security\.log\.\d+$/.test(name));
    const before = await verifySecurityLog(dir);
    fs.rmSync(path.join(dir, names[0] as string));
    const after = await verifySecurityLog(dir);
    if (!before.ok || !after.ok) throw new Error("not ok");
    expect(before.firstSeq).toBe(before.sealedToSeq + 1);
    expect(after.firstSeq).toBeGreaterThan(after.sealedToSeq + 1);
  });

  test("a first line that was put in place of the one that followed does not fit the seal", async () => {
    const log = open(bounded);
    await fill(log, 500);
    await log.close();
    const name = fs.readdirSync(dir).find((name) => /^security\.log\.\d+$/.test(name)) as string;
    const lines = readLines(path.join(dir, name));
    const forged = JSON.stringify({ ...JSON.parse(lines[0] as string), previous: "f".repeat(64) });
    // With all hashes after it made anew, up to the end of the log: the seal alone knows.
    let previous: string | null = null;
    for (const file of [...fs.readdirSync(dir).filter((name) => /^security\.log\.\d+$/.test(name)), "security.log"]) {
      const changed = readLines(path.join(dir, file)).map((line) => {
        const next: string = previous === null ? forged : JSON.stringify({ ...JSON.parse(line), previous });
        previous = createHash("sha256").update(next).digest("hex");
        return next;
      });
      fs.writeFileSync(path.join(dir, file), `${changed.join("\n")}\n`);
    }
    const head = JSON.parse(fs.readFileSync(path.join(dir, "security.log.head"), "utf8"));
    fs.writeFileSync(path.join(dir, "security.log.head"), JSON.stringify({ ...head, hash: previous }));
    expect(await verifySecurityLog(dir)).toMatchObject({ ok: false, reason: expect.stringContaining("deleted") });
  });

  test("lines that were changed before they were deleted show for ever", async () => {
    const log = open({ maxBytes: 2000 });
    await fill(log, 200);
    await log.close();
    const [oldest] = fs.readdirSync(dir).filter((name) => /^security\.log\.\d+$/.test(name));
    const file = path.join(dir, oldest as string);
    fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace('"alice"', '"carol"'));
    expect(await verifySecurityLog(dir)).toMatchObject({ ok: false });
    for (let round = 0; round < 4; round++) {
      const bounding = open(bounded);
      await fill(bounding, 200);
      await vi.waitFor(() => expect(totalBytes()).toBeLessThanOrEqual(TOTAL + 2000), { timeout: 20_000 });
      await bounding.close();
      expect(fs.existsSync(file)).toBe(false);
      expect(await verifySecurityLog(dir)).toMatchObject({ ok: false, reason: expect.stringContaining("changed") });
    }
  });

  test("a crash at any moment leaves a log that verifies, and no line that was reported is lost", async () => {
    for (let round = 0; round < 3; round++) {
      const { child, output } = startWriter(`
        const log = new SecurityLog({ dir, maxBytes: 2000, maxTotalBytes: ${TOTAL} });
        for (let i = 1; ; i++) {
          if (!(await log.append(event))) throw new Error("not written");
          process.stdout.write(i + "\\n");
          if (i % 5 === 0) await new Promise(setImmediate);
        }`);
      const exited = once(child, "exit");
      let reported = 0;
      for await (const line of output) {
        reported = Number(line);
        if (reported === 300 + round * 7) child.kill("SIGKILL");
      }
      await exited;
      const verification = await verifySecurityLog(dir);
      if (!verification.ok) throw new Error(verification.reason);
      expect(verification.head?.seq).toBeGreaterThanOrEqual(reported);
    }
  });

  test("repeated events are one line, also when the log is closed before the minute is over", async () => {
    const log = open();
    for (let i = 0; i < 5000; i++) log.appendFolded(event({ event: "auth_failure", details: {} }), "192.0.2.7");
    log.appendFolded(event({ event: "auth_failure", ip: "192.0.2.8", details: {} }), "192.0.2.8");
    await log.close();
    expect(parsedLines().map(({ ip, details }) => [ip, details.count])).toEqual([
      ["192.0.2.7", undefined],
      ["192.0.2.8", undefined],
      ["192.0.2.7", 4999],
    ]);
  });
});

describe("the chain", () => {
  test("goes on after a restart and across rotation", async () => {
    for (let run = 0; run < 4; run++) {
      const log = open({ maxBytes: 2000 });
      for (let i = 0; i < 10; i++) log.append(event());
      await log.close();
    }
    const verification = await verifySecurityLog(dir);
    expect(verification).toMatchObject({ ok: true, lines: 40, firstSeq: 1, head: { seq: 40 }, notes: [] });
    const files = fs.readdirSync(dir).filter((name) => /^security\.log(\.\d+)?$/.test(name));
    expect(files.length).toBeGreaterThan(3);
    for (const name of files) expect(fs.statSync(path.join(dir, name)).size).toBeLessThanOrEqual(2000);
    expect(verification.ok && verification.files.toSorted()).toEqual(files.toSorted());
  });

  test("goes on after SIGKILL with every line that was reported as written", async () => {
    const { child, output } = startWriter(`
      const log = new SecurityLog({ dir, maxBytes: 5000 });
      for (let i = 1; ; i++) {
        if (!(await log.append(event))) throw new Error("not written");
        process.stdout.write(i + "\\n");
        if (i % 20 === 0) await new Promise(setImmediate);
      }`);
    const exited = once(child, "exit");
    let reported = 0;
    for await (const line of output) {
      reported = Number(line);
      if (reported === 200) child.kill("SIGKILL");
    }
    await exited;
    const before = await verifySecurityLog(dir);
    expect(before.ok && before.lines).toBeGreaterThanOrEqual(reported);
    const log = open();
    log.append(event());
    await log.close();
    expect(await verifySecurityLog(dir)).toMatchObject({ ok: true, lines: (before as { lines: number }).lines + 1 });
  });

  test("goes on after SIGKILL in the middle of turns of many lines: those of a turn that was reported are there", async () => {
    const { child, output } = startWriter(`
      const log = new SecurityLog({ dir, maxBytes: 20_000 });
      for (let turn = 1; ; turn++) {
        const written = await Promise.all(Array.from({ length: 1 + turn % 40 }, () => log.append(event)));
        if (written.includes(false)) throw new Error("not written");
        process.stdout.write(written.length + "\\n");
      }`);
    const exited = once(child, "exit");
    let reported = 0;
    for await (const line of output) {
      reported += Number(line);
      if (reported > 3000) child.kill("SIGKILL");
    }
    await exited;
    const before = await verifySecurityLog(dir);
    expect(before.ok && before.lines).toBeGreaterThanOrEqual(reported);
    const log = open();
    await log.append(event());
    await log.close();
    expect(await verifySecurityLog(dir)).toMatchObject({ ok: true, lines: (before as { lines: number }).lines + 1 });
  });

  test("survives a torn last line, and says what there was of it", async () => {
    const log = open();
    log.append(event());
    await log.close();
    fs.appendFileSync(current(), '{"timestamp":"20');
    const reopened = open();
    reopened.append(event());
    await reopened.close();
    expect(parsedLines().map(({ event, details }) => [event, details.torn])).toEqual([
      ["code_execution", undefined],
      ["log_recovered", '{"timestamp":"20'],
      ["code_execution", undefined],
    ]);
    expect(await verifySecurityLog(dir)).toMatchObject({
      ok: true,
      lines: 3,
      notes: [{ file: "security.log", line: 2, event: "log_recovered" }],
    });
  });

  test("goes on after a crash between renaming a full file and beginning the next", async () => {
    const log = open();
    for (let i = 0; i < 3; i++) log.append(event());
    await log.close();
    fs.renameSync(current(), `${current()}.000000000001`);
    expect(await verifySecurityLog(dir)).toMatchObject({ ok: true, lines: 3 });
    const reopened = open();
    reopened.append(event());
    await reopened.close();
    expect(parsedLines()[0]).toMatchObject({ seq: 4 });
    expect(await verifySecurityLog(dir)).toMatchObject({ ok: true, lines: 4, notes: [] });
  });

  test("tells that old files were moved elsewhere, without calling it damage", async () => {
    const log = open({ maxBytes: 2000 });
    for (let i = 0; i < 30; i++) log.append(event());
    await log.close();
    const [oldest] = fs.readdirSync(dir).filter((name) => /\.\d+$/.test(name));
    fs.rmSync(path.join(dir, oldest as string));
    const verification = await verifySecurityLog(dir);
    expect(verification.ok && verification.firstSeq).toBeGreaterThan(1);
    for (const name of fs.readdirSync(dir)) if (/\.\d+$/.test(name)) fs.rmSync(path.join(dir, name));
    const last = await verifySecurityLog(dir);
    expect(last.ok && last.firstSeq).toBe(parsedLines()[0].seq);
  });
});

describe("trouble", () => {
  test("with the folder: events wait, and are written when it is there", async () => {
    const blocker = path.join(dir, "blocker");
    fs.writeFileSync(blocker, "");
    const health: (string | null)[] = [];
    const recovered = Promise.withResolvers<void>();
    const log = open({
      dir: path.join(blocker, "logs"),
      retryEveryMs: 10,
      onHealth: (healthy, reason) => {
        health.push(reason);
        if (healthy) recovered.resolve();
      },
    });
    expect(log.healthy).toBe(false);
    expect(await log.append(event())).toBe(false);
    expect(log.reason).toBe("ENOTDIR (mkdir)");
    fs.rmSync(blocker);
    await recovered.promise;
    expect(log.healthy).toBe(true);
    expect(await log.append(event())).toBe(true);
    expect(health).toEqual(["ENOTDIR (mkdir)", null]);
    await log.close();
    expect(await verifySecurityLog(path.join(blocker, "logs"))).toMatchObject({ ok: true, lines: 2 });
  });

  test("without a folder: never healthy, never an error", async () => {
    const log = open({ dir: "" });
    expect([log.healthy, log.reason, log.file, await log.append(event())]).toEqual([
      false,
      "LOG_DIR is empty",
      null,
      false,
    ]);
  });

  test("a second server on the same folder waits for the first to end", async () => {
    const first = open();
    const free = Promise.withResolvers<void>();
    const second = open({ retryEveryMs: 10, onHealth: (healthy) => healthy && free.resolve() });
    expect([second.healthy, second.reason]).toEqual([false, "another server writes to this folder"]);
    first.append(event());
    second.append(event());
    await first.close();
    await free.promise;
    await second.close();
    expect(await verifySecurityLog(dir)).toMatchObject({ ok: true, lines: 2, notes: [] });
  });

  // A file size limit lets a part of the line through and then refuses, as a full disk does.
  test.skipIf(!fs.existsSync("/usr/bin/prlimit"))(
    "with a full disk: no half line stays, the chain goes on",
    async () => {
      const { child, output } = startWriter(
        `
      import { createInterface } from "node:readline";
      const say = (value) => process.stdout.write(JSON.stringify(value) + "\\n");
      const log = new SecurityLog({ dir, maxBytes: 1e6, retryEveryMs: 10, onHealth: (ok, reason) => say({ ok, reason }) });
      let written = 0;
      while (await log.append(event)) written++;
      await log.append(event);
      say({ written });
      for await (const _ of createInterface({ input: process.stdin })) break;
      await log.close();
      process.exit(0);`,
        // An ignored signal stays ignored: the write then fails with EFBIG instead of ending the process.
        ["sh", "-c", 'trap "" XFSZ; exec prlimit --fsize=10000:unlimited "$@"', "sh"],
      );
      const exited = once(child, "exit");
      const messages: Record<string, unknown>[] = [];
      for await (const line of output) {
        const message = JSON.parse(line);
        messages.push(message);
        if ("written" in message) {
          expect(fs.statSync(current()).size).toBeLessThan(10_000);
          expect(fs.readFileSync(current(), "utf8").endsWith("}\n")).toBe(true);
          const raised = spawn("prlimit", ["--fsize=unlimited:unlimited", "--pid", String(child.pid)]);
          expect((await once(raised, "exit"))[0]).toBe(0);
        }
        if (message.ok) child.stdin.end("\n");
      }
      await exited;
      expect(messages).toEqual([
        { ok: false, reason: "EFBIG (write)" },
        { written: expect.any(Number) },
        { ok: true, reason: null },
      ]);
      const { written } = messages[1] as { written: number };
      expect(await verifySecurityLog(dir)).toMatchObject({ ok: true, lines: written + 2, notes: [] });
    },
  );
});

describe("the lines of one turn", () => {
  test("are one write, and no promise is settled before it", async () => {
    const log = open();
    await log.sync();
    const write = vi.spyOn(fs, "writeFileSync");
    try {
      const answers: number[] = [];
      const appended = Array.from({ length: 20 }, () =>
        log.append(event()).then(() => answers.push(readLines().length)),
      );
      expect(log.writing).not.toBeNull();
      // Promises that are ready do not end a turn.
      for (let i = 0; i < 100; i++) await null;
      expect(answers).toEqual([]);
      await Promise.all(appended);
      expect(answers).toEqual(Array(20).fill(20));
      expect(write.mock.calls.filter(([file]) => typeof file === "number")).toHaveLength(1);
      expect(log.writing).toBeNull();
    } finally {
      write.mockRestore();
    }
    await log.close();
    expect(await verifySecurityLog(dir)).toMatchObject({ ok: true, lines: 20, notes: [] });
  });

  test("lie on both sides of a rotation, and those of 14 MB in writes of their own", async () => {
    const log = open({ maxBytes: 2000 });
    const details = codeDetails("x".repeat(10 * 2 ** 20), true);
    const appended = Array.from({ length: 30 }, (_, i) => log.append(event(i % 10 === 9 ? { details } : {})));
    expect(await Promise.all(appended)).toEqual(Array(30).fill(true));
    await log.close();
    expect(await verifySecurityLog(dir)).toMatchObject({ ok: true, lines: 30, notes: [] });
  });

  test("end with the log, also where it is closed in the same turn", async () => {
    const log = open();
    const appended = [log.append(event()), log.append(event())];
    await log.close();
    expect(await Promise.all(appended)).toEqual([true, true]);
    expect(await log.append(event())).toBe(false);
    expect(await verifySecurityLog(dir)).toMatchObject({ ok: true, lines: 2, notes: [] });
  });

  // The write of many lines gets through in part: whole lines, and the beginning of one.
  test.each([
    ["is taken back", ""],
    // As where the disk does not even shorten a file: then it happens before the next write.
    ["is taken back later, where it cannot be at once", "fail"],
  ])("fail together: what came through %s, and each line is there once when there is room", async (_name, cut) => {
    const lines = 40;
    const log = open({ retryEveryMs: 10 });
    await log.append(event());
    const before = fs.readFileSync(current(), "utf8");
    const { writeFileSync } = fs;
    const write = vi.spyOn(fs, "writeFileSync").mockImplementation((file, data, options) => {
      if (typeof file !== "number") return writeFileSync(file, data, options);
      writeFileSync(file, String(data).slice(0, String(data).length / 2), options);
      throw Object.assign(new Error("no space"), { code: "ENOSPC", syscall: "write" });
    });
    const truncate = vi.spyOn(fs, "ftruncateSync");
    if (cut === "fail") {
      truncate.mockImplementation(() => {
        throw Object.assign(new Error("read-only"), { code: "EROFS", syscall: "ftruncate" });
      });
    }
    try {
      const appended = Array.from({ length: lines }, () => log.append(event()));
      expect(await Promise.all(appended)).toEqual(Array(lines).fill(false));
      expect([log.healthy, log.reason]).toEqual([false, "ENOSPC (write)"]);
      if (cut === "fail") expect(fs.readFileSync(current(), "utf8").length).toBeGreaterThan(before.length);
      else expect(fs.readFileSync(current(), "utf8")).toBe(before);
    } finally {
      write.mockRestore();
      truncate.mockRestore();
    }
    await vi.waitFor(() => expect(log.healthy).toBe(true), { timeout: 20_000 });
    expect(await log.append(event())).toBe(true);
    await log.close();
    expect(await verifySecurityLog(dir)).toMatchObject({ ok: true, lines: lines + 2, notes: [] });
  });
});

describe("tampering while the log is open", () => {
  test.each([
    ["the last lines are cut off", () => fs.truncateSync(current(), fs.statSync(current()).size - 20)],
    ["the file is removed", () => fs.rmSync(current())],
    ["the file is replaced by a copy", () => replaceByCopy()],
    ["something is appended", () => fs.appendFileSync(current(), "{}\n")],
    ["the folder is removed", () => fs.rmSync(dir, { recursive: true })],
  ])("%s: it is noticed, recorded, and shows for ever", async (name, tamper) => {
    const reopened = Promise.withResolvers<void>();
    const log = open({ retryEveryMs: 10, onHealth: (healthy) => healthy && reopened.resolve() });
    for (let i = 0; i < 5; i++) log.append(event());
    await log.sync();
    tamper();
    await log.sync();
    if (!log.healthy) await reopened.promise;
    log.append(event());
    await log.close();
    const events = parsedLines().map(({ event }) => event);
    if (name === "the file is replaced by a copy") {
      expect(await verifySecurityLog(dir)).toMatchObject({ ok: true, lines: 6 });
    } else {
      expect(events).toContain("log_damaged");
      expect(await verifySecurityLog(dir)).toMatchObject({ ok: false, file: "security.log" });
    }
  });

  function replaceByCopy() {
    fs.copyFileSync(current(), `${current()}.copy`);
    fs.renameSync(`${current()}.copy`, current());
  }
});

test("what user code can cause at any rate is a hundred lines of a principal's, and one with the number of the others", async () => {
  const dir = temporaryFolder();
  const log = new SecurityLog({ dir, maxBytes: 2 ** 30 });
  // Each by its name: none of these can be given to `append`, which writes all that it is given.
  const names: Record<CodeEventName, true> = {
    tool_call: true,
    network_request: true,
    network_refused: true,
    package_install: true,
  };
  const kinds = Object.keys(names) as CodeEventName[];
  for (let i = 0; i < 1000; i++)
    for (const kind of kinds)
      for (const principal of ["a", "b"]) log.appendOften({ ...event(), event: kind, principal });
  await log.close();
  const lines = fs.readFileSync(path.join(dir, "security.log"), "utf8").trim().split("\n");
  expect(lines).toHaveLength(kinds.length * 2 * 101);
});
