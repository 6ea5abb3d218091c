import { afterAll, beforeAll, expect, test } from "vitest";
import { ClientError } from "../../shared/errors.ts";
import { temporaryFolder } from "../../shared/testing/temporary-folder.ts";
import { DiskWorkspaces } from "../../workspaces/disk-workspaces.ts";
import { Contents, type ContentsOptions, sandboxPath } from "./contents.ts";

const MIB = 2 ** 20;
const SHOWN = { withContent: true };
let store: DiskWorkspaces;

beforeAll(() => {
  store = new DiskWorkspaces({ directory: temporaryFolder("contents"), maxBytes: 200 * MIB, maxFiles: 100 });
});
afterAll(() => store.close());

const contentsOf = (hold: ContentsOptions["hold"]): Contents =>
  new Contents({
    workspace: store.of("alice"),
    principal: "alice",
    maxFileBytes: 10 * MIB,
    hold,
    signal: new AbortController().signal,
  });
const put = async (name: string, content: Uint8Array | string): Promise<string> => {
  const path = sandboxPath([name]);
  await store.of("alice").put(path, Buffer.from(content as string));
  return path;
};

test.each(["a.txt", "a.ipynb"])("of %s no more is shown than the limit, and it is not read", async (name) => {
  const path = await put(name, `{"cells": ["${"a".repeat(16 * MIB)}"]}`);
  const held: number[] = [];
  const reading = contentsOf((bytes) => void held.push(bytes)).get(path, SHOWN);
  await expect(reading).rejects.toMatchObject({ status: 413, code: "file_too_large" });
  expect(held).toEqual([]);
});

test.each(["b.txt", "b.ipynb"])("what a reply with %s holds is counted before it is read", async (name) => {
  const path = await put(name, "no notebook");
  const contents = contentsOf(() => {
    throw new ClientError("too_much_held");
  });
  // Once it was read, the notebook would be another error.
  await expect(contents.get(path, SHOWN)).rejects.toMatchObject({ code: "too_much_held" });
  await expect(contents.get(path, { withContent: false })).resolves.toMatchObject({ content: null });
});

test("escapes are counted, too", async () => {
  const path = await put("c.txt", new Uint8Array(MIB).fill(1));
  const held: number[] = [];
  await contentsOf((bytes) => void held.push(bytes)).get(path, SHOWN);
  expect(held).toEqual([MIB, 6 * MIB + 2]);
});

test("copies and checkpoints hold nothing", async () => {
  const path = await put("d.txt", new Uint8Array(MIB).fill(1));
  const contents = contentsOf(() => {
    throw new ClientError("too_much_held");
  });
  expect(await contents.copy(path, sandboxPath([]))).toMatchObject({ name: "d-Copy1.txt", size: MIB });
  await contents.checkpoint(path);
  await put("d.txt", "changed");
  await contents.restore(path);
  expect(await store.of("alice").read(path)).toHaveLength(MIB);
});
