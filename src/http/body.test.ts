import express from "express";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readBodies } from "./body.ts";
import { MAX_INLINE_BYTES } from "./body-limits.ts";
import { serve, type TestServer } from "./testing/serve.ts";

const JSON_TYPE = "application/json";
const FORM_TYPE = "application/x-www-form-urlencoded";
const LONG = "x".repeat(2 * MAX_INLINE_BYTES);

let server: TestServer;
beforeAll(async () => {
  const app = express();
  app.use(readBodies((request) => request.method !== "PUT"));
  app.all("/", (request, response) => void response.json({ read: request.body ?? null }));
  server = await serve(app);
});
afterAll(() => server[Symbol.asyncDispose]());

async function send(type: string, body: string, method = "POST") {
  const response = await fetch(server.origin, { method, headers: { "Content-Type": type }, body });
  return { status: response.status, ...((await response.json()) as object) };
}

test.each([
  ["JSON", JSON_TYPE, '{"a":[1]}', { a: [1] }],
  ["a form", FORM_TYPE, "a=1&b[]=2", { a: "1", b: ["2"] }],
  ["no content", JSON_TYPE, "", {}],
  ["long JSON", JSON_TYPE, JSON.stringify({ a: LONG }), { a: LONG }],
  ["a long form", FORM_TYPE, `a=${LONG}`, { a: LONG }],
  ["what is neither", "text/plain", "{}", null],
])("%s is read", async (_, type, body, read) => {
  expect(await send(type, body)).toEqual({ status: 200, read });
});

test("what is left to its route is not read", async () => {
  expect(await send(JSON_TYPE, "{}", "PUT")).toEqual({ status: 200, read: null });
});

const UNREADABLE = [
  [400, "Invalid JSON format", ["{", `{"a":"${LONG}`]],
  [400, "JSON too complex: ", ["[".repeat(300) + "]".repeat(300), `[${"[],".repeat(MAX_INLINE_BYTES)}[]]`]],
] as const;

test.each(UNREADABLE.flatMap(([status, error, bodies]) => bodies.map((body) => ({ status, error, body }))))(
  "$status $error",
  async ({ status, error, body }) => {
    expect(await send(JSON_TYPE, body)).toMatchObject({ status, error: expect.stringContaining(error) });
  },
);

test("long bodies that come at once are read side by side, whatever is wrong with one of them", async () => {
  const bodies = Array.from({ length: 6 }, (_, i) => (i === 2 ? `{"a":"${LONG}` : JSON.stringify({ i, a: LONG })));
  const replies = await Promise.all(bodies.map((body) => send(JSON_TYPE, body)));
  expect(replies.map(({ status }) => status)).toEqual([200, 200, 400, 200, 200, 200]);
});

test("an encoding that is not known is refused before anything is read", async () => {
  expect(await send(`${JSON_TYPE}; charset=klingon`, "{}")).toMatchObject({ status: 415 });
});
