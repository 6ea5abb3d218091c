import { chmodSync, cpSync, existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { text } from "node:stream/consumers";
import { beforeAll, describe, expect, test } from "vitest";
import { openHost } from "../../src/compose/host.ts";
import { denoCache } from "../../src/environments/deno-cache.ts";
import { ImageCache } from "../../src/environments/images.ts";
import { wrapCommand } from "../../src/isolation/detect.ts";
import { spawnWrapped } from "../../src/isolation/wrap.ts";
import { type LaunchOptions, PYODIDE_DIR } from "../../src/sandbox/launch.ts";
import { ARCHIVES_FOLDER, KINDS } from "../../src/shared/cache-layout.ts";
import { denoBinary } from "../../src/shared/deno-binary.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { testConfig } from "../support/config.ts";
import { guestOptions } from "../support/sandbox.ts";

/** What Deno does with each of its databases, and which modules there are in it. */
const AS_DENO = `import { DatabaseSync } from "node:sqlite";
const [file] = Deno.args;
const database = new DatabaseSync(file);
database.exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA temp_store=memory; PRAGMA optimize");
database.exec("CREATE TABLE IF NOT EXISTS info (key TEXT PRIMARY KEY, value TEXT NOT NULL)");
console.log(JSON.stringify(database.prepare("SELECT specifier FROM moduleinfocache").all()));
`;

const folder = temporaryFolder("deno-cache");
const config = testConfig();
let host: Omit<LaunchOptions, "guest">;
let denoDir: string;

beforeAll(async () => {
  // Sandboxes may have users of their own, who read from here.
  chmodSync(folder, 0o755);
  const opened = await openHost(config);
  host = opened;
  const images = new ImageCache({ cacheDir: config.CACHE_DIR, host: opened, onProgress: () => {} });
  const { path: baseImagePath, stdlibPath } = await images.base();
  denoDir = (await denoCache({
    cacheDir: folder,
    key: "0123456789abcdef".repeat(2),
    sandbox: { ...opened, guest: guestOptions({ baseImagePath, stdlibPath }) },
  })) as string;
});

/** Runs the script behind all layers, with every permission of Deno's. */
async function behindTheLayers(visible: string): Promise<string> {
  const script = path.join(folder, "as-deno.ts");
  writeFileSync(script, AS_DENO);
  const child = spawnWrapped(
    wrapCommand(host.isolation, {
      command: denoBinary(),
      args: [
        "run",
        "--quiet",
        "--no-config",
        "--no-lock",
        "--allow-all",
        script,
        path.join(visible, "dep_analysis_cache_v2"),
      ],
      readOnlyPaths: [script, visible],
      env: {},
      memoryBytes: 2 ** 26,
    }),
  );
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return stdout + stderr;
}

describe("what Deno has kept", () => {
  test("is used where nothing can be written, all modules of it", async ({ skip }) => {
    if (host.isolation.wrapping === null) skip("no layer of the operating system's works here");
    const said = await behindTheLayers(denoDir);
    expect(said).toContain(`"file://${PYODIDE_DIR}/pyodide.asm.mjs"`);
    expect(said).toContain('/src/guest/io/watcher.ts"');
  });

  test("and all else in a cache that servers have used is of a kind that the collector knows", () => {
    const known = (name: string) => Object.values(KINDS).some((pattern) => pattern.test(name));
    const folders = [config.CACHE_DIR, path.join(config.CACHE_DIR, ARCHIVES_FOLDER)];
    const names = folders.flatMap((place) => (existsSync(place) ? readdirSync(place) : []));
    expect(names.filter((name) => !known(name) && name !== ARCHIVES_FOLDER)).toEqual([]);
    expect(names.filter((name) => KINDS.image.test(name))).not.toEqual([]);
    expect(path.basename(denoDir)).toMatch(KINDS.denoFolder);
  });

  test("would not be without the files of SQLite's that go with it", async ({ skip }) => {
    if (host.isolation.wrapping === null) skip("no layer of the operating system's works here");
    const bare = path.join(folder, "bare");
    cpSync(denoDir, bare, { recursive: true });
    for (const name of readdirSync(bare)) if (/-(wal|shm)$/.test(name)) rmSync(path.join(bare, name));
    expect(await behindTheLayers(bare)).toMatch(/unable to open database file|readonly database/);
  });
});
