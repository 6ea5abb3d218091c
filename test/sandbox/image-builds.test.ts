import { cpSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { pino } from "pino";
import { expect, test } from "vitest";
import { openEnvironments } from "../../src/compose/environments.ts";
import { openHost } from "../../src/compose/host.ts";
import { ARCHIVES_FOLDER } from "../../src/shared/cache-layout.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { decodeImage } from "../../src/wire/image-format.ts";
import { testConfig } from "../support/config.ts";

/** Prepares the standard library in a cache folder. */
async function prepare(settings: Record<string, string>): Promise<{ image: Buffer; archive: string }> {
  const config = testConfig(settings);
  const host = await openHost(config);
  const { environments, close } = await openEnvironments(config, pino({ level: "silent" }), host);
  await environments.prepare();
  const { baseImagePath, stdlibPath } = environments.get(environments.defaultName);
  await close();
  return { image: readFileSync(baseImagePath as string), archive: stdlibPath as string };
}

/** Builds the image in a folder of its own. The archive, which takes longer, is the one that all tests have. */
async function build(settings: Record<string, string>): Promise<Buffer> {
  const { archive } = await prepare({});
  const folder = temporaryFolder("pyodide-express-images");
  const archives = path.dirname(archive);
  const copy = path.join(folder, ARCHIVES_FOLDER);
  mkdirSync(copy, { recursive: true });
  for (const name of readdirSync(archives)) {
    if (name === path.basename(archive) || name.endsWith(".json"))
      cpSync(path.join(archives, name), path.join(copy, name));
  }
  return (await prepare({ CACHE_DIR: folder, ...settings })).image;
}

test("an image is the same wherever it is built, whatever V8 is told, with memory mapped and without", async () => {
  const first = await build({});
  const second = await build({ SANDBOX_COMPACT: "true", MEMORY_MAPPING: "off", ISOLATION: "deno" });
  expect(decodeImage(first).header).toEqual(decodeImage(second).header);
  expect(Buffer.compare(first, second)).toBe(0);
}, 180_000);
