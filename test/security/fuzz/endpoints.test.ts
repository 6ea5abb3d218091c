import fc from "fast-check";
import { afterAll, beforeAll, expect } from "vitest";
import { startTestServer, type TestServer } from "../../support/server.ts";
import { fuzz } from "./property.ts";

/** Requests that are on their way at a time. */
const AT_ONCE = 16;

let server: TestServer;
let endpoints: { method: string; path: string }[];
beforeAll(async () => {
  server = await startTestServer({ POOL_SIZE: "1" });
  // Every path and method that the interface's own description names, with something in place of its parameters.
  const { body } = await server.get("/docs.json");
  endpoints = Object.entries(body.paths as Record<string, object>).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => ({ method: method.toUpperCase(), path })),
  );
  expect(endpoints.length).toBeGreaterThan(20);
});
afterAll(() => server.stop(0));

const nasty = fc.constantFrom(
  ...[
    "",
    "..",
    "%2e%2e%2f",
    "%00",
    "a/b",
    "__proto__",
    "constructor",
    "toString",
    "x".repeat(3000),
    "💥",
    "%ff",
    "'",
    '"',
    "<script>",
  ],
  ...[
    "../../etc/passwd",
    "C:\\x",
    "-1",
    "1e999",
    "NaN",
    "null",
    "[]",
    "\u202e",
    "a b",
    "*",
    "?x=y",
    "#",
    ";",
    "|",
    "$(id)",
    "{{7*7}}",
  ],
);
/** What there is now and then, so that not everything ends at what is missing. */
const known = fc.constantFrom("fuzz", "a.csv", "stdlib", "@previous", "one");
const text = fc.oneof(nasty, known, fc.string({ maxLength: 40 }));
/** Code that ends at once, so that what is fuzzed is the edge. */
const code = fc.oneof(text, fc.constantFrom("1", "print(1)", "1/0", "x", "\ud800", "\0"));
const field = fc.constantFrom(
  "code",
  "context",
  "timeout",
  "session",
  "environment",
  "files",
  "stdin",
  "package",
  "name",
  "id",
  "ttl",
  "__proto__",
);
const value = fc.oneof(code, fc.jsonValue({ maxDepth: 3 }), fc.integer(), fc.double(), fc.constant(null));
const json = fc.oneof(
  fc
    .dictionary(field, value, { maxKeys: 6, noNullPrototype: true })
    .map((body) => JSON.stringify({ timeout: 2000, ...body })),
  fc.jsonValue().map((body) => JSON.stringify(body)),
  text,
  fc.constant(`${"[".repeat(20_000)}`),
  fc.tuple(fc.constantFrom("csvFile", "file", "x"), text, text).map(([field, filename, content]) => {
    const name = filename.replaceAll(/["\r\n]/g, "");
    return `--x\r\nContent-Disposition: form-data; name="${field}"; filename="${name}"\r\n\r\n${content}\r\n--x--`;
  }),
);
const type = fc.constantFrom(
  "application/json",
  "text/plain",
  "application/x-www-form-urlencoded",
  "multipart/form-data; boundary=x",
  "multipart/form-data",
  "application/json; charset=utf-7",
  "x/y",
  "",
);

const request = fc.record({
  endpoint: fc.nat(),
  method: fc.option(fc.constantFrom("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"), { freq: 9 }),
  parameter: text,
  query: text,
  type,
  body: json,
});

type Fuzzed = typeof request extends fc.Arbitrary<infer T> ? T : never;

async function send({ endpoint, method: other, parameter, query, type, body }: Fuzzed) {
  const { method: own, path } = endpoints[endpoint % endpoints.length] as (typeof endpoints)[number];
  // A stream that stays open says nothing more.
  if (path.endsWith("/stream")) return;
  const method = other ?? own;
  const place = path.replaceAll(/\{[^}]+\}/g, encodeURIComponent(parameter.toWellFormed()));
  const url = `${server.url}${place}?q=${encodeURIComponent(query.toWellFormed())}`;
  const response = await fetch(url, {
    method,
    headers: type === "" ? {} : { "content-type": type },
    ...(method === "GET" || method === "HEAD" ? {} : { body: body.toWellFormed() }),
    signal: AbortSignal.timeout(30_000),
    redirect: "manual",
  });
  const answer = await response.text();
  expect(response.status, `${method} ${place}: ${answer.slice(0, 300)}`).toBeLessThan(500);
  expect(response.headers.get("x-request-id")).toBeTruthy();
  expect(answer).not.toMatch(/node_modules|at \w+ \(file:/);
}

fuzz(
  "endpoints: none answers with a 5xx, hangs, or ends the server",
  fc.asyncProperty(fc.array(request, { minLength: AT_ONCE, maxLength: AT_ONCE }), async (requests) => {
    await Promise.all(requests.map(send));
    expect((await server.get("/ready")).status).toBe(200);
  }),
  { batch: AT_ONCE },
);
