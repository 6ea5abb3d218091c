import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { PROTOCOLS, SETTINGS } from "../../src/shared/settings.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const ROOT = new URL("../../", import.meta.url);

let readme: string;
let server: TestServer;
beforeAll(async () => {
  readme = await readFile(new URL("README.md", ROOT), "utf8");
  server = await startTestServer();
});
afterAll(async () => await server.stop(0));

test("the settings table has every setting", () => {
  const named = Array.from(readme.matchAll(/^\| `([A-Z0-9_]+)` \|/gm), ([, name]) => name);
  expect(named).toEqual(Object.keys(SETTINGS));
});

test("the first curl gets the reply that stands below it", async () => {
  const [, body] = /\/api\/execute -H [^\n]*\n {2}-d '(.*)'/.exec(readme) ?? [];
  const [, shown] = /```json\n([\s\S]*?)```/.exec(readme) ?? [];
  const { timestamp, executionTime, cpuTime, ...expected } = JSON.parse(shown ?? "");
  const reply = await server.post("/api/execute", body);
  expect(reply.body).toMatchObject(expected);
  expect(Object.keys(reply.body).sort()).toEqual(Object.keys(JSON.parse(shown ?? "")).sort());
  expect([typeof timestamp, typeof executionTime, typeof cpuTime]).toEqual(["string", "number", "number"]);
});

test("every endpoint it lists is served", async () => {
  const listed = Array.from(readme.matchAll(/`(GET|POST) (\/[\w/-]+)`/g), ([, method, path]) => ({
    method,
    path,
  }));
  expect(listed.length).toBeGreaterThan(15);
  for (const { method, path } of listed) {
    const { status } = await fetch(server.url + path, { method: method as string });
    expect([path, status]).not.toEqual([path, 404]);
  }
});

test("every protocol it lists is spoken, and the API's description names where", async () => {
  const rows = Array.from(
    readme.matchAll(/^\| \[[^\]]+\]\(docs\/clients\.md#(\w+)\) \| ([^|]+) \| `(GET|POST) (\/[\w/]+)`/gm),
    ([, name = "", where = "", method = "", path = ""]) => ({ name, where, method, path }),
  );
  expect(rows.map(({ name }) => name).sort()).toEqual([...PROTOCOLS].sort());
  const clients = await readFile(new URL("docs/clients.md", ROOT), "utf8");
  const { description } = (await server.get("/docs.json")).body.info;
  for (const { name, where, method, path } of rows) {
    expect(clients).toMatch(new RegExp(`^## ${name}$`, "im"));
    const [, prefix = ""] = /^`([^`]+)`/.exec(where) ?? [];
    expect(path.startsWith(prefix)).toBe(true);
    expect(description).toContain(`\`${prefix}\``);
    const { status } = await fetch(server.url + path, { method });
    expect([path, status]).not.toEqual([path, 404]);
  }
});

test("the files and folders it names exist, and .ci/run runs its test command", async () => {
  const links = Array.from(readme.matchAll(/\]\((?!https?:)([^)#]+)\)/g), ([, path]) => path as string);
  const folders = Array.from(readme.matchAll(/^ {4}(src\/[\w-]+\/)/gm), ([, path]) => `${path}README.md`);
  expect(links.length * folders.length).toBeGreaterThan(0);
  for (const path of [...links, ...folders]) await readFile(new URL(path, ROOT));
  const command = "npm ci && npm test";
  expect(readme).toContain(`\n${command}\n`);
  expect(await readFile(new URL(".ci/run", ROOT), "utf8")).toContain(`\n${command}\n`);
});
