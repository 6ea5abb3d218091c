import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { PackageServer, serveBytes } from "../../../src/packages/testing/package-server.ts";
import { makeWheel } from "../../../src/packages/testing/wheels.ts";
import { Target } from "./target.ts";

/** One principal's packages take no other's room: with shares of 16 MiB, and wheels of 3. */
vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const MALLORY = "mallorys-own-key-here";
const ALICE = "alices-own-key-here";
const WHEEL_BYTES = 3 * 2 ** 20;

let index: PackageServer;
let target: Target;

beforeAll(async () => {
  index = await PackageServer.start();
  const names = ["one", "two", "three", "four", "five", "six", "wanted"];
  for (const name of names) {
    const files = { [`${name}/__init__.py`]: "", [`${name}/data.bin`]: randomBytes(WHEEL_BYTES) };
    index.add(await makeWheel({ name, version: "1.0", files }));
  }
  target = await Target.start({
    settings: { PACKAGE_INDEX_URL: index.indexUrl, PACKAGES_PRINCIPAL_MAX_MB: "16" },
  });
});
afterAll(async () => {
  await target?.stop();
  await index?.close();
});

const post = async (where: string, key: string, body: object = {}) =>
  (
    await target.send(where, {
      method: "POST",
      headers: { "content-type": "application/json", "x-api-key": key },
      body: JSON.stringify(body),
    })
  ).body;
const install = async (name: string, key: string) => await post("/api/install-package", key, { package: name });

test("to install and forget, again and again, ends with one's own share; others have theirs", async () => {
  const outcomes: unknown[] = [];
  for (const name of ["one", "two", "three", "four", "five", "six"]) {
    const body = await install(name, MALLORY);
    outcomes.push(body.success);
    if (!body.success) expect(body).toMatchObject({ error: expect.stringContaining("more than your share, 16 MiB") });
    await post("/api/reset", MALLORY);
  }
  // Two wheels with an archive each, and then no more.
  expect(outcomes).toEqual([true, true, false, false, false, false]);
  expect(await install("one", ALICE)).toMatchObject({ success: true });
  expect((await target.run("import one; 1", {}, ALICE)).body).toMatchObject({ result: 1 });
  // What is within the share goes on.
  expect(await install("one", MALLORY)).toMatchObject({ success: true });
});

test("what is fetched for one who may have no more is fetched for another who waits for the same", async () => {
  const name = "wanted-1.0-py3-none-any.whl";
  const answers: (() => void)[] = [];
  const bytes = (await makeWheel({ name: "wanted", version: "1.0" })).bytes;
  const real = await fetch(`${index.origin}/files/${name}`).then(async (response) =>
    Buffer.from(await response.arrayBuffer()),
  );
  expect(real.length).toBeGreaterThan(bytes.length);
  index.on(`/files/${name}`, (request, response) => void answers.push(() => serveBytes(real)(request, response)));
  const before = index.count(`/files/${name}`);
  const mallorys = install("wanted", MALLORY);
  await expect.poll(() => index.count(`/files/${name}`)).toBe(before + 1);
  const alices = install("wanted", ALICE);
  const timer = setInterval(() => {
    for (const answer of answers.splice(0)) answer();
  }, 1000);
  expect(await mallorys).toMatchObject({ success: false, error: expect.stringContaining("more than your share") });
  expect(await alices).toMatchObject({ success: true });
  clearInterval(timer);
});
