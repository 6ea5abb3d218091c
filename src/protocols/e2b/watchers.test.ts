import { once } from "node:events";
import { connect } from "node:net";
import express from "express";
import { expect, test } from "vitest";
import { until } from "../../../test/support/until.ts";
import { serve } from "../../http/testing/serve.ts";
import type { FileEntry } from "../../wire/messages.ts";
import { MessageStream } from "./connect.ts";
import { FolderWatch, SandboxView, Watchers } from "./watchers.ts";

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

test("what a folder's watchers are sent is written once for all of them", async () => {
  const { view, set } = sandbox();
  const watches = Array.from({ length: 3 }, () => new FolderWatch(view, { path: HOME, recursive: true }));
  for (const watch of watches) await watch.begin();
  set(...Array.from({ length: 2500 }, (_, n) => `f${n}`));
  const [first, ...others] = await Promise.all(watches.map(async (watch) => await watch.envelopes()));
  expect(first?.toString().match(/"filesystem":\{"name":"f\d+"/g)).toHaveLength(5000);
  expect(others.map((other) => other === first)).toEqual([true, true]);
});

test("looks come one at a time, and other work between them", async () => {
  const watchers = new Watchers();
  const order: string[] = [];
  let isOver = false;
  const other = () => {
    order.push("other");
    if (!isOver) setImmediate(other);
  };
  setImmediate(other);
  let looking = 0;
  const look = async () => {
    order.push("look");
    expect(++looking).toBe(1);
    await new Promise(setImmediate);
    looking--;
  };
  await Promise.all(Array.from({ length: 5 }, () => watchers.inTurn("alice", look)));
  isOver = true;
  expect(order.join(" ").replaceAll(/(?:other ?)+/g, "- ")).toMatch(/^(?:- look ){5}/);
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
