import { execFile, execFileSync, spawn } from "node:child_process";
import { cp, mkdir, readdir, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";

const ROOT = path.resolve(import.meta.dirname, "../..");
const run = promisify(execFile);
/** The machine's own: npm puts the project's first when it runs a script. */
const PATH = (process.env.PATH ?? "")
  .split(path.delimiter)
  .filter((folder) => !folder.includes("node_modules"))
  .join(path.delimiter);
const MINUTES = 60_000;

// What tests leave in this folder goes with their run.

/** As a clone has it: what git would leave out is left out. */
async function clone(): Promise<string> {
  const folder = path.join(temporaryFolder("quick-start"), "pyodide-express");
  const files = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], { cwd: ROOT });
  for (const file of files.toString().split("\0").filter(Boolean)) {
    if (/^(package|bin\/|src\/|web\/)/.test(file)) await cp(path.join(ROOT, file), path.join(folder, file));
  }
  return folder;
}

describe("npm ci && npm start", () => {
  let folder: string;

  beforeAll(async () => {
    folder = await clone();
  });

  test("work in production, with no script run and no development dependency, whatever Node there is", {
    timeout: 5 * MINUTES,
  }, async ({ skip }) => {
    const env = { PATH, HOME: process.env.HOME, NODE_ENV: "production", npm_config_update_notifier: "false" };
    const flags = ["--ignore-scripts", "--omit=dev", "--prefer-offline", "--no-audit", "--no-fund"];
    const installed = await run("npm", ["ci", ...flags], { cwd: folder, env }).catch((error) => error as Error);
    if (installed instanceof Error) skip(`npm cannot install here: ${installed.message}`);
    const server = spawn("npm", ["start"], {
      cwd: folder,
      env: { ...env, PORT: "0", PYODIDE_PACKAGES: "none", LOG_LEVEL: "info" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    try {
      let url: string | undefined;
      for await (const line of createInterface({ input: server.stdout })) {
        url = /Ready on (http:\/\/[^"\s]+)/.exec(line)?.[1];
        if (url !== undefined) break;
      }
      server.stdout.resume();
      const reply = await fetch(`${url}/api/execute`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ code: "1 + 1" }),
      });
      expect(await reply.json()).toMatchObject({ success: true, result: 2 });
      const ended = new Promise((resolve) => server.once("exit", resolve));
      server.kill("SIGTERM");
      await ended;
      // What npm started is gone with it.
      await expect
        .poll(
          () =>
            fetch(`${url}/ready`).then(
              () => "answers",
              () => "gone",
            ),
          { timeout: 20_000 },
        )
        .toBe("gone");
    } finally {
      server.kill("SIGKILL");
    }
  });

  test.each(["18", "20", "22"])(
    "by Node %s without one that npm brings is one sentence that says what to do",
    { timeout: 5 * MINUTES },
    async (major) => {
      const place = temporaryFolder("quick-start");
      await writeFile(path.join(place, "package.json"), "{}");
      const name = `node-${process.platform}-${process.arch}`;
      const flags = ["--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"];
      await run("npm", ["install", `${name}@${major}`, ...flags], { cwd: place });
      const node = path.join(place, "node_modules", name, "bin", "node");
      const bare = path.join(place, "app");
      await mkdir(bare);
      await cp(path.join(ROOT, "bin"), path.join(bare, "bin"), { recursive: true });
      const { code, stderr } = await run(node, [path.join(bare, "bin/pyodide-express.mjs"), "serve"]).catch(
        (error) => error,
      );
      expect(code).toBe(1);
      expect(stderr).toMatch(
        new RegExp(
          `^pyodide-express needs Node 24 or later and this is ${major}\\.\\d+\\.\\d+: run \`npm ci\` without --omit=optional, [^\\n]+\\n$`,
        ),
      );
      // With the project's installed beside it, it hands over, exit code and output included.
      const { stdout } = await run(node, [path.join(ROOT, "bin/pyodide-express.mjs"), "--help"]).catch(
        (error) => error,
      );
      expect(stdout).toContain("pyodide-express <command>");
    },
  );
});

test("what modules compile to is kept beside the sources, and nowhere that others can write to", async () => {
  const place = temporaryFolder("quick-start-cache");
  for (const name of ["bin", "src", "package.json"])
    await cp(path.join(ROOT, name), path.join(place, name), { recursive: true });
  await mkdir(path.join(place, "node_modules"));
  const packages = path.join(ROOT, "node_modules");
  for (const name of await readdir(packages))
    if (!name.startsWith(".")) await symlink(path.join(packages, name), path.join(place, "node_modules", name));
  const tmp = path.join(place, "tmp");
  await mkdir(tmp);
  const help = () =>
    run(process.execPath, [path.join(place, "bin/pyodide-express.mjs"), "--help"], {
      env: { ...process.env, TMPDIR: tmp },
    });
  expect((await help()).stdout).toContain("pyodide-express <command>");
  const cache = path.join(place, "node_modules/.cache/node-compile-cache");
  expect((await readdir(cache, { recursive: true })).length).toBeGreaterThan(5);
  expect(await readdir(tmp)).toEqual([]);
  // Where it cannot be written, that is all.
  await rm(cache, { recursive: true });
  await writeFile(cache, "");
  expect((await help()).stdout).toContain("pyodide-express <command>");
});

test("scripts need no shell but npm's own, on any system", async () => {
  const { default: manifest } = await import("../../package.json", { with: { type: "json" } });
  for (const [name, command] of Object.entries(manifest.scripts)) {
    // `cmd` knows `&&`, and neither `exec`, `VAR=value command`, `;`, quotes of one stroke nor paths to a script.
    expect(command, name).not.toMatch(/\bexec\b|^\s*\w+=|[;'`$]|\.\//);
  }
  expect(Object.keys(manifest.scripts).filter((name) => /^(pre|post)?install$|^prepare$/.test(name))).toEqual([]);
});
