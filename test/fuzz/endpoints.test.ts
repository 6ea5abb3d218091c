import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";
import { FUZZ_RUNS, FUZZ_TIMEOUT_MS } from "./runs.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ POOL_SIZE: "1" });
});
afterAll(() => server.stop(0));

/** Every path and method that the interface's own description names, with something in place of its parameters. */
async function endpoints(): Promise<{ method: string; path: string }[]> {
  const { body } = await server.get("/docs.json");
  return Object.entries(body.paths as Record<string, object>).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => ({ method: method.toUpperCase(), path })),
  );
}

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
const text = fc.oneof(nasty, fc.string({ maxLength: 40 }));
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

test("no endpoint answers anything with a 5xx, or ends the server", { timeout: FUZZ_TIMEOUT_MS * 5 }, async () => {
  const known = await endpoints();
  expect(known.length).toBeGreaterThan(20);
  const request = fc.record({ endpoint: fc.constantFrom(...known), parameter: text, query: text, type, body: json });
  await fc.assert(
    fc.asyncProperty(request, async ({ endpoint, parameter, query, type, body }) => {
      const { method, path } = endpoint;
      // A stream that stays open says nothing more.
      if (path.endsWith("/stream")) return;
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
    }),
    { numRuns: FUZZ_RUNS },
  );
  expect((await server.post("/api/execute", { code: "6 * 7" })).body.result).toBe(42);
});
