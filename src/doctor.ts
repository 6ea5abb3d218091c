import { readFile } from "node:fs/promises";
import path from "node:path";
import type { Config } from "./config.ts";
import { ImageCache } from "./environments/image-cache.ts";
import { denoBinary } from "./sandbox/deno-binary.ts";
import { PYODIDE_DIR } from "./sandbox/launch.ts";
import { Sandbox } from "./sandbox/sandbox.ts";
import { openHost } from "./server.ts";

/** Tells what this machine has, by trying it. Returns the exit code: 0 if code can be run here. */
export async function doctor(config: Config): Promise<number> {
  const rows: [string, string][] = [];
  const manifest = JSON.parse(await readFile(path.join(PYODIDE_DIR, "package.json"), "utf8")) as { version: string };
  rows.push(["node", `${process.version} (${process.platform} ${process.arch})`]);
  rows.push(["pyodide", manifest.version]);
  rows.push(["cache", config.CACHE_DIR]);
  let healthy = true;
  const attempt = async (name: string, what: () => Promise<string> | string) => {
    try {
      rows.push([name, await what()]);
    } catch (error) {
      healthy = false;
      rows.push([name, `FAILED: ${(error as Error).message}`]);
    }
  };
  await attempt("deno", () => denoBinary());
  await attempt("sandbox", async () => {
    const host = await openHost(config);
    const { isolation } = host;
    for (const { name, active, detail } of isolation.layers) {
      rows.push([`isolation: ${name}`, `${active ? "active" : "not active"}: ${detail}`]);
    }
    for (const reason of isolation.rejected) rows.push(["isolation: tried", reason]);
    const images = new ImageCache({
      cacheDir: config.CACHE_DIR,
      host,
      onProgress: (message) => console.log(message),
    });
    const image = await images.base();
    const sizeMb = (image.bytes / 2 ** 20).toFixed(1);
    const sha = image.sha256.slice(0, 16);
    rows.push(["image", `${sizeMb} MiB, built ${image.builtAt} in ${image.buildMs} ms, SHA-256 ${sha}…`]);
    const sandbox = await Sandbox.start({
      guest: {
        baseImagePath: image.path,
        environment: null,
        preload: [],
        maxHeapBytes: Number.MAX_SAFE_INTEGER,
        hashCheckpoint: false,
      },
      ...host,
    });
    rows.push(["python", sandbox.pythonVersion]);
    sandbox.kill("the doctor is done");
    await sandbox.ended;
    return `ready in ${sandbox.bootMs} ms`;
  });
  const width = Math.max(...rows.map(([name]) => name.length));
  for (const [name, value] of rows) console.log(`${name.padEnd(width)}  ${value}`);
  return healthy ? 0 : 1;
}
