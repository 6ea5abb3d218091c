import { execFile, spawnSync } from "node:child_process";
import { readdirSync, readFileSync, symlinkSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";
import { loadSettings } from "../../src/shared/settings.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { TEST_CACHE_DIR } from "../support/config.ts";

/**
 * The commands of docs/operations.md, run as they stand there, with a data folder and a port of the test's own. Blocks that are marked
 * `sh install` are run by quick-start.test.ts, `sh elsewhere` need a network, and those below Redis and disks have tests of their own.
 */
const run = promisify(execFile);
const ROOT = new URL("../../", import.meta.url).pathname;
const SECTIONS = ["Install", "Size", "Through a proxy", "Air gap", "TLS"];
const handbook = readFileSync(path.join(ROOT, "docs/operations.md"), "utf8");

function blocksOf(section: string): string[] {
  const text = handbook.split(/^## /m).find((part) => part.startsWith(`${section}\n`)) ?? expect.fail(section);
  return Array.from(text.matchAll(/^```sh\n([\s\S]*?)^```$/gm), ([, block]) => block as string);
}

let folder: string;
let port: number;
beforeAll(async () => {
  folder = temporaryFolder("handbook");
  // As the repository is, but what commands write goes here.
  for (const name of readdirSync(ROOT))
    if (name !== "data") symlinkSync(path.join(ROOT, name), path.join(folder, name));
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  port = (probe.address() as { port: number }).port;
  await new Promise((resolve) => probe.close(resolve));
});

async function runBlock(block: string, prefix: readonly string[] = []): Promise<string> {
  const { PATH, HOME } = process.env;
  const command = block.replaceAll("127.0.0.1:3000", `127.0.0.1:${port}`);
  const [file = "", ...args] = [...prefix, "bash", "-eo", "pipefail", "-c", command];
  const { stdout, stderr } = await run(file, args, {
    cwd: folder,
    env: {
      PATH: `${path.dirname(process.execPath)}:${PATH}`,
      HOME,
      PORT: String(port),
      CACHE_DIR: TEST_CACHE_DIR,
      POOL_SIZE: "1",
      PYODIDE_PACKAGES: prefix.length > 0 ? "numpy,pandas" : "none",
    },
  });
  return stdout + stderr;
}

describe.each(SECTIONS.filter((name) => name !== "Air gap"))("%s", (section) => {
  const blocks = blocksOf(section);
  test.skipIf(blocks.length === 0)("its commands work", { timeout: 240_000 }, async () => {
    for (const block of blocks) await runBlock(block);
  });
});

const canUnshare = spawnSync("unshare", ["-rn", "true"]).status === 0;
test.skipIf(!canUnshare)("the commands for an air gap work without any network", { timeout: 240_000 }, async () => {
  const said: string[] = [];
  for (const block of blocksOf("Air gap")) said.push(await runBlock(block, ["unshare", "-rn"]));
  expect(said).not.toEqual([]);
  expect(said.join("")).toMatch(/default\\?" goes without numpy/);
});

test("the table of sizes is what comes out", () => {
  const rows = Array.from(
    handbook.matchAll(/^\| (none|\d+ [MG]iB) \| (\d+) \| (\d+) \| (\d+) \|$/gm),
    ([, limit = "", cpus, size, memory]) => ({ limit, cpus: Number(cpus), expected: [Number(size), Number(memory)] }),
  );
  expect(rows.length).toBeGreaterThan(3);
  for (const { limit, cpus, expected } of rows) {
    const bytes = Number.parseInt(limit, 10) * 2 ** (limit.endsWith("GiB") ? 30 : 20);
    const memory = limit === "none" ? null : { bytes, from: "" };
    const { config } = loadSettings({}, () => ({ cpus: { count: cpus, from: "" }, memory }));
    expect([limit, config.POOL_SIZE, config.SANDBOX_MEMORY_MB]).toEqual([limit, ...expected]);
  }
});

test("the flags that it installs with are those that quick-start.test.ts installs with", () => {
  const [, command = ""] = /^```sh install\n(.*)\n```$/m.exec(handbook) ?? [];
  const quickStart = readFileSync(path.join(ROOT, "test/operations/quick-start.test.ts"), "utf8");
  expect(command).toMatch(/^npm ci /);
  for (const flag of command.split(" ").slice(2)) expect(quickStart).toContain(`"${flag}"`);
});
