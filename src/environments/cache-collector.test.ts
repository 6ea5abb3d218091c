import { mkdir, readdir, utimes, writeFile } from "node:fs/promises";
import path from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { denoFolderName, imageName, memoryName } from "../shared/cache-layout.ts";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import { CacheCollector, type CacheCollectorOptions } from "./cache-collector.ts";

const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;
const NOW_MS = Date.UTC(2026, 0, 1);
const hex = (digit: string, count: number) => digit.repeat(count);
const image = (digit: string) => imageName("default", hex(digit, 32));
const sha = (digit: string) => hex(digit, 64);

let cacheDir: string;
let wheelsDir: string;
let removals: string[];

beforeEach(async () => {
  cacheDir = temporaryFolder();
  wheelsDir = temporaryFolder();
  removals = [];
});

async function put(place: string, agoMs: number, bytes = 10): Promise<string> {
  await mkdir(path.dirname(place), { recursive: true });
  await writeFile(place, Buffer.alloc(bytes));
  const usedAt = (NOW_MS - agoMs) / 1000;
  await utimes(place, usedAt, usedAt);
  return place;
}

const inCache = async (name: string, agoMs: number, bytes?: number) =>
  await put(path.join(cacheDir, name), agoMs, bytes);
const inWheels = async (name: string, agoMs: number) => await put(path.join(wheelsDir, name), agoMs);

function keeper(options: Partial<CacheCollectorOptions> = {}): CacheCollector {
  return new CacheCollector({
    cacheDir,
    wheelsDir,
    unusedMs: 30 * DAY_MS,
    maxBytes: Number.POSITIVE_INFINITY,
    neededWheels: async () => new Set(),
    onRemoved: (paths) => removals.push(...paths),
    ...options,
  });
}

async function left(): Promise<string[]> {
  const names = [...(await readdir(cacheDir, { recursive: true })), ...(await readdir(wheelsDir, { recursive: true }))];
  return names.filter((name) => !["archives", "partial"].includes(name)).toSorted();
}

describe("what was not used for long", () => {
  test("goes, with what belongs to it, and is told", async () => {
    const old = 31 * DAY_MS;
    const gone = [
      await inCache(image("a"), old),
      await inCache(`${image("a")}.json`, old),
      await inCache(memoryName("default", hex("a", 32)), old),
      await inCache(`${denoFolderName("read-only", hex("a", 32))}/gen/file`, old),
      await inCache(`archives/${sha("a")}.pkgs`, old),
      await inCache(`archives/${sha("a")}.json`, old),
      await inWheels(`${sha("a")}.whl`, old),
    ];
    gone[3] = path.dirname(path.dirname(gone[3] as string));
    await utimes(gone[3], (NOW_MS - old) / 1000, (NOW_MS - old) / 1000);
    await inCache(image("b"), 29 * DAY_MS);
    // Its time is the image's.
    await inCache(`${image("b")}.json`, old);
    const removed = await keeper().sweep(NOW_MS);
    expect(await left()).toEqual([image("b"), `${image("b")}.json`]);
    expect([...removed].toSorted()).toEqual(gone.toSorted());
    expect(removals.toSorted()).toEqual(gone.toSorted());
  });

  test("stays where it is held, was used since, or is needed to build what is installed", async () => {
    const held = await inCache(image("a"), 100 * DAY_MS);
    const used = await inCache(image("b"), 100 * DAY_MS);
    await inWheels(`${sha("c")}.whl`, 100 * DAY_MS);
    const own = keeper({ neededWheels: async () => new Set([sha("c")]) });
    own.hold(held);
    own.use(used);
    await own.sweep(NOW_MS);
    expect(await left()).toEqual([image("a"), image("b"), `${sha("c")}.whl`].toSorted());
    // Other servers see by its time that it is in use; 31 days later only what is held still is.
    await keeper({ neededWheels: async () => new Set([sha("c")]) }).sweep(NOW_MS + 29 * DAY_MS);
    expect(await left()).toHaveLength(3);
    await own.sweep(NOW_MS + 31 * DAY_MS);
    expect(await left()).toEqual([image("a"), `${sha("c")}.whl`].toSorted());
  });

  test("stays if its name is not one of ours", async () => {
    const names = ["notes.txt", "my.image", "environment.json", "archives/readme.json", "precious.whl"];
    for (const name of names) await inCache(name, 1000 * DAY_MS);
    await inWheels("principals/state.json", 1000 * DAY_MS);
    await keeper({ maxBytes: 0 }).sweep(NOW_MS);
    expect(await left()).toHaveLength(names.length + 2);
  });

  test("stays for ever if that is what is wanted", async () => {
    await inCache(image("a"), 10_000 * DAY_MS);
    await keeper({ unusedMs: Number.POSITIVE_INFINITY }).sweep(NOW_MS);
    expect(await left()).toEqual([image("a")]);
  });
});

test("above the limit the least recently used goes first, and nothing that may be in use", async () => {
  await inCache(image("a"), 3 * DAY_MS, 100);
  await inCache(`archives/${sha("b")}.pkgs`, 2 * DAY_MS, 100);
  await inCache(image("c"), 3 * HOUR_MS, 100);
  await inCache(image("d"), HOUR_MS, 100);
  await keeper({ maxBytes: 400 }).sweep(NOW_MS);
  expect(await left()).toHaveLength(4);
  await keeper({ maxBytes: 250 }).sweep(NOW_MS);
  expect(await left()).toEqual([image("c"), image("d")]);
  await keeper({ maxBytes: 0 }).sweep(NOW_MS);
  expect(await left()).toEqual([image("d")]);
});

test("a folder counts with all that is in it", async () => {
  const folder = denoFolderName("read-only", hex("a", 32));
  await inCache(`${folder}/gen/file/deep`, 3 * DAY_MS, 300);
  for (const place of [folder, `${folder}/gen`]) {
    await utimes(path.join(cacheDir, place), (NOW_MS - 3 * DAY_MS) / 1000, (NOW_MS - 3 * DAY_MS) / 1000);
  }
  await inCache(image("b"), 2 * DAY_MS, 100);
  // What the file system takes for the folders themselves counts as well: some KiB.
  await keeper({ maxBytes: 100_000 }).sweep(NOW_MS);
  expect(await readdir(cacheDir)).toHaveLength(2);
  await keeper({ maxBytes: 300 }).sweep(NOW_MS);
  expect(await readdir(cacheDir)).toEqual([image("b")]);
});

test("what builds and downloads that were cut off have left goes after a day", async () => {
  const unfinished = ["deno-Ab12Cd", `${image("a")}.123.tmp`, "archives/.0b5d6c1e-aaaa-bbbb-cccc-0123456789ab.tmp"];
  for (const name of unfinished) await inCache(name, 23 * HOUR_MS);
  await inWheels(`partial/${sha("a")}.part`, 23 * HOUR_MS);
  await keeper().sweep(NOW_MS);
  expect(await left()).toHaveLength(4);
  await keeper().sweep(NOW_MS + 2 * HOUR_MS);
  expect(await left()).toEqual([]);
});

test("folders that are not there are no error", async () => {
  const own = keeper({ cacheDir: path.join(cacheDir, "none"), wheelsDir: path.join(wheelsDir, "none") });
  own.hold("/nowhere");
  expect((await own.sweep(NOW_MS)).size).toBe(0);
});
