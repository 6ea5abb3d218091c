import fs from "node:fs";
import path from "node:path";
import { beforeEach, expect, test } from "vitest";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import { openServerLog, type ServerLogOptions } from "./server-log.ts";

let dir: string;
let printed: string;

beforeEach(() => {
  dir = temporaryFolder("server-log");
  printed = "";
});

const open = (options: Partial<ServerLogOptions> = {}) =>
  openServerLog({
    level: "info",
    dir,
    maxBytes: 1_000_000,
    stdout: { write: (line: string) => (printed += line) },
    ...options,
  });

const read = (name = "server.log") => fs.readFileSync(path.join(dir, name), "utf8");

test("writes the same JSON lines to the file and to standard output, from its level up", () => {
  const log = open();
  log.logger.debug("not this");
  log.logger.info({ port: 3000 }, "listening");
  log.close();
  expect(JSON.parse(printed)).toEqual({
    level: "info",
    timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
    port: 3000,
    msg: "listening",
  });
  expect(read()).toBe(printed);
  expect(log.file).toBe(path.join(dir, "server.log"));
});

test("never writes a secret, nor what a terminal acts upon", () => {
  const log = open();
  log.logger.info({ req: { headers: { authorization: "Bearer hunter2", "x-api-key": "hunter2", cookie: "hunter2" } } });
  log.logger.info({ authorization: "hunter2", config: { API_KEYS: "a:hunter2", API_KEY: "hunter2" } });
  log.logger.info({ headers: { "x-api-key": "hunter2" }, token: "hunter2" }, "a\n\u001b[2J\u009b\u202e\u2028b");
  log.close();
  expect(read()).not.toContain("hunter2");
  expect(read().match(/\[redacted\]/g)).toHaveLength(8);
  expect(read().match(/[\p{Cc}\p{Cf}\p{Zl}]/gu)).toEqual(["\n", "\n", "\n"]);
});

test("rotates by size, and keeps five old files, none of them over it", () => {
  const log = open({ maxBytes: 1000 });
  for (let i = 0; i < 100; i++) log.logger.info({ i }, "x".repeat(100));
  log.close();
  const files = fs.readdirSync(dir).sort();
  expect(files).toEqual(["server.log", ...[1, 2, 3, 4, 5].map((n) => `server.log.${n}`)]);
  const oldestFirst = files.toReversed();
  const numbers = oldestFirst.flatMap((name) =>
    read(name)
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line).i),
  );
  expect(numbers.at(-1)).toBe(99);
  for (const name of files) expect(fs.statSync(path.join(dir, name)).size).toBeLessThanOrEqual(1000);
  expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, i) => 100 - numbers.length + i));
});

test("goes on with the file of an earlier run", () => {
  for (const msg of ["one", "two", "three"]) {
    const log = open({ maxBytes: 150 });
    log.logger.info(msg);
    log.close();
  }
  const messages = (name: string) => [...read(name).matchAll(/"msg":"(\w+)"/g)].map(([, msg]) => msg);
  expect([messages("server.log.1"), messages("server.log")]).toEqual([["one", "two"], ["three"]]);
});

test("goes on without a folder, and with one that cannot be used", () => {
  const none = open({ dir: "" });
  none.logger.info("one");
  none.close();
  expect(none.file).toBeNull();
  fs.writeFileSync(path.join(dir, "blocker"), "");
  const blocked = open({ dir: path.join(dir, "blocker", "logs") });
  blocked.logger.info("two");
  fs.rmSync(path.join(dir, "blocker"));
  blocked.logger.info("three");
  blocked.close();
  expect(
    printed
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line).msg),
  ).toEqual(["one", "two", "three"]);
  expect(read("blocker/logs/server.log")).toContain("three");
});

test("reads well while developing", () => {
  const log = open({ pretty: true });
  log.logger.warn({ requestId: "8e2f" }, "two\nlines");
  log.close();
  expect(printed).toMatch(/^\d\d:\d\d:\d\d WARN {2}two\\nlines \{"requestId":"8e2f"\}\n$/);
});
