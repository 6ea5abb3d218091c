import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { expect, test } from "vitest";
import { sha256Hex } from "../shared/blob-folder.ts";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import { DiskWorkspaces } from "./disk-workspaces.ts";
import { contentOfRound, roundOf } from "./testing/rounds.ts";

const KILLS = 20;

test("kill -9 in the middle of writing leaves the last durable state or the next, 20 times", {
  timeout: 120_000,
}, async () => {
  const directory = temporaryFolder("workspaces");
  let round = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    const acknowledged = await writeAndKill(directory, round + 1, 1 + (kill % 4));
    round = await checkedRound(directory);
    expect(round).toBeGreaterThanOrEqual(acknowledged);
  }
});

/** @returns the last round that the process said was durable, when `SIGKILL` had ended it. */
async function writeAndKill(directory: string, firstRound: number, rounds: number): Promise<number> {
  const script = path.join(import.meta.dirname, "testing/write-forever.ts");
  const child = spawn(process.execPath, [script, directory, String(firstRound)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  let acknowledged = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    acknowledged = Number(line);
    // Where in a round the kill lands is left to chance; the checks hold wherever that is.
    if (acknowledged === firstRound + rounds) setTimeout(() => child.kill("SIGKILL"), Math.random() * 15);
  }
  expect(await exited).toEqual([null, "SIGKILL"]);
  return acknowledged;
}

/** @returns the one round that all that is in the workspace comes from. */
async function checkedRound(directory: string): Promise<number> {
  const store = new DiskWorkspaces({ directory, maxBytes: 64 * 1024 * 1024, maxFiles: 100 });
  try {
    const workspace = store.of("crash");
    const first = await workspace.read("/home/pyodide/first");
    const round = roundOf(first);
    expect(Buffer.compare(first, contentOfRound(round))).toBe(0);
    expect(Buffer.compare(await workspace.read("/tmp/last"), contentOfRound(round))).toBe(0);
    const plots = (await workspace.list()).filter(({ path }) => path.startsWith("/plots/round-"));
    expect(plots.map(({ path }) => path)).toEqual([`/plots/round-${round}`]);

    const [upload] = await workspace.uploads();
    const uploaded = await workspace.read("/home/pyodide/up.csv");
    const uploadRound = roundOf(uploaded);
    expect([round, round - 1]).toContain(uploadRound);
    expect(Buffer.compare(uploaded, contentOfRound(uploadRound))).toBe(0);
    expect(upload?.sha256).toBe(await sha256Hex(uploaded));
    await expectNothingLeftOver(directory, upload?.sha256 ?? "", await sha256Hex(first));
    return round;
  } finally {
    await store.close();
  }
}

async function expectNothingLeftOver(directory: string, ...referenced: string[]): Promise<void> {
  const [workspace] = (await fs.readdir(directory)).filter((name) => name !== "lock" && !name.startsWith("lock-"));
  const folder = path.join(directory, workspace ?? "");
  const empty = await sha256Hex(new Uint8Array());
  expect(new Set(await fs.readdir(path.join(folder, "blobs")))).toEqual(new Set([...referenced, empty]));
  expect(await fs.readdir(path.join(folder, "incoming"))).toEqual([]);
}
