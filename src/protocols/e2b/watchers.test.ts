import { once } from "node:events";
import { connect } from "node:net";
import express from "express";
import { expect, test } from "vitest";
import { until } from "../../../test/support/until.ts";
import { serve } from "../../http/testing/serve.ts";
import type { FileEntry } from "../../wire/messages.ts";
import { MessageStream } from "./connect.ts";
import { FolderWatch, SandboxView } from "./watchers.ts";

const HOME = "/home/pyodide";
const entry = (path: string, kind: FileEntry["kind"] = "file"): FileEntry => ({ path, size: 1, mtimeMs: 1, kind });

/** A sandbox whose files are set, and how often they were listed. */
function sandbox() {
  let version = 0;
  let paths: readonly string[] = [];
  let listed = 0;
  const list = async () => {
    listed++;
    return new Map(
      [entry(HOME, "folder"), ...paths.map((path) => entry(`${HOME}/${path}`))].map((of) => [of.path, of]),
    );
  };
  return {
    view: new SandboxView(async () => String(version), list),
    set: (...next: string[]) => {
      version++;
      paths = next;
    },
    listed: () => listed,
  };
}

test("files are listed once for all watchers, and again only where they have changed", async () => {
  const { view, set, listed } = sandbox();
  set("a");
  const watches = Array.from({ length: 60 }, () => new FolderWatch(view, { path: HOME, recursive: true }));
  await Promise.all(watches.map(async (watch) => await watch.begin()));
  for (let look = 0; look < 5; look++) {
    expect(await Promise.all(watches.map(async (watch) => await watch.events()))).toEqual(watches.map(() => []));
  }
  expect(listed()).toBe(1);
  set("b");
  const seen = await Promise.all(watches.map(async (watch) => await watch.events()));
  expect(seen[0]).toEqual([
    { name: "b", type: "EVENT_TYPE_CREATE" },
    { name: "b", type: "EVENT_TYPE_WRITE" },
    { name: "a", type: "EVENT_TYPE_REMOVE" },
  ]);
  expect(seen.every((events) => events === seen[0])).toBe(true);
  expect(listed()).toBe(2);
});

test("watchers of one sandbox that look at different times each see every change", async () => {
  const { view, set } = sandbox();
  const [early, late] = [true, false].map((recursive) => new FolderWatch(view, { path: HOME, recursive }));
  if (!early || !late) throw new Error("none");
  await early.begin();
  await late.begin();
  set("a", "sub/b");
  expect((await early.events()).map(({ name }) => name)).toEqual(["a", "a", "sub/b", "sub/b"]);
  set("c");
  expect((await late.events()).map(({ name }) => name)).toEqual(["c", "c"]);
  expect((await early.events()).map(({ name }) => name)).toEqual(["c", "c", "a", "sub/b"]);
});

test("a stream whose client does not read ends instead of growing", async () => {
  const sent = Promise.withResolvers<{ written: number; isOver: boolean }>();
  const app = express();
  app.get("/", (_request, response) => {
    const stream = new MessageStream(response);
    stream.open({});
    const message = { text: "x".repeat(64 * 1024) };
    for (let n = 0; n < 1000; n++) stream.send(message);
    sent.resolve({ written: response.writableLength, isOver: stream.isOver });
  });
  await using server = await serve(app);
  const { hostname, port } = new URL(server.origin);
  const socket = connect(Number(port), hostname).pause();
  await once(socket, "connect");
  socket.write("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const { written, isOver } = await sent.promise;
  expect(isOver).toBe(true);
  expect(written).toBeLessThan(6 * 1024 * 1024);
  let last = "";
  let isClosed = false;
  socket.on("data", (chunk) => {
    last = (last + chunk.toString("latin1")).slice(-1000);
  });
  socket.once("close", () => {
    isClosed = true;
  });
  socket.resume();
  await until(() => isClosed);
  expect(last).toContain("resource_exhausted");
});
