import express from "express";
import { expect, test } from "vitest";
import { JsonText } from "../shared/json/json-text.ts";
import { EventStream } from "./event-stream.ts";
import { serve } from "./testing/serve.ts";

test("a request that waits for anything gets a heartbeat, though nothing opened its stream", async () => {
  const app = express();
  app.get("/", (_request, response) => void new EventStream(response, 20));
  await using server = await serve(app);
  const response = await fetch(server.origin);
  expect(response.headers.get("content-type")).toContain("text/event-stream");
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  let text = "";
  while (text.length < 12) text += new TextDecoder().decode((await reader.read()).value);
  expect(text.replaceAll(": \n\n", "")).toBe("");
  await reader.cancel();
});

test("one that is answered by a status gets nothing else", async () => {
  const app = express();
  app.get("/", (_request, response) => {
    new EventStream(response, 5);
    response.status(429).write("no ");
    setTimeout(() => response.end("room"), 50);
  });
  await using server = await serve(app);
  const response = await fetch(server.origin);
  expect([response.status, await response.text()]).toEqual([429, "no room"]);
});

test("a client that does not read is sent no more heartbeats than its connection holds", async () => {
  const app = express();
  let waiting = () => 0;
  app.get("/", (_request, response) => {
    const stream = new EventStream(response, 1);
    stream.send({ text: "x".repeat(32 * 2 ** 20) });
    waiting = () => response.writableLength;
  });
  await using server = await serve(app);
  const controller = new AbortController();
  await fetch(server.origin, { signal: controller.signal });
  const before = waiting();
  expect(before).toBeGreaterThan(0);
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(waiting()).toBeLessThanOrEqual(before);
  controller.abort();
});

test.each(["sse", "ndjson"] as const)("an event is one line (%s), however its values were written", async (format) => {
  const value = { forged: [{ type: "result" }], text: "a\nb\r\n" };
  const written = JSON.stringify(value).replaceAll(/[[\]{},:]/g, "\n$&\r\n\n");
  expect(JSON.parse(written)).toEqual(value);
  const app = express();
  app.get("/", (_request, response) => {
    const stream = new EventStream(response, 10_000, format);
    stream.send({ type: "event", value: JsonText.check(Buffer.from(written), { maxDepth: 9, maxNodes: 99 }) });
    response.end();
  });
  await using server = await serve(app);
  const lines = (await (await fetch(server.origin)).text()).split(/[\n\r]/).filter((line) => line !== "");
  expect(lines.map((line) => JSON.parse(line.replace(/^data: /, "")))).toEqual([{ type: "event", value }]);
});
