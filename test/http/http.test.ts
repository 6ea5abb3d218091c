import { readFile } from "node:fs/promises";
import { request as httpRequest } from "node:http";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cpuTime } from "../support/cpu-time.ts";
import { openRawRequest } from "../support/raw-request.ts";
import { type Reply, startTestServer, type TestServer } from "../support/server.ts";

const MIB = 1024 * 1024;
const ISO_TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const FORM = { "content-type": "application/x-www-form-urlencoded" };
const TEXT = { "content-type": "text/plain" };

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(async () => await server.stop(0));

const execute = (body: unknown, headers?: Record<string, string>) => server.post("/api/execute", body, headers);

function expectError(reply: Reply, status: number, error: string | RegExp): void {
  const said = typeof error === "string" ? error : expect.stringMatching(error);
  expect(reply.body).toMatchObject({ success: false, error: said, timestamp: expect.stringMatching(ISO_TIMESTAMP) });
  expect(reply.status).toBe(status);
  expect(reply.headers.get("content-type")).toMatch(/^application\/json/);
}

/** The server is well: it still runs code. Follows every request that could have harmed it. */
async function expectHealthy(): Promise<void> {
  const { status, body } = await execute({ code: "6 * 7" });
  expect({ status, result: body.result }).toEqual({ status: 200, result: 42 });
}

describe("POST /api/execute: a reply", () => {
  test("has every field of an ExecResult", async () => {
    const { status, body } = await execute({ code: 'print("hi")\n1 + 1' });
    expect(status).toBe(200);
    expect(body).toEqual({
      success: true,
      status: "completed",
      result: 2,
      error: null,
      stdout: "hi\n",
      stderr: "",
      outputs: [],
      timestamp: expect.stringMatching(ISO_TIMESTAMP),
      executionTime: expect.any(Number),
      cpuTime: cpuTime,
    });
  });

  test("is 200 for a Python error, with the traceback in stderr", async () => {
    const { status, body } = await execute({ code: "def f():\n    return 1 / 0\nf()" });
    expect(status).toBe(200);
    expect(body).toMatchObject({
      success: false,
      result: null,
      error: "division by zero",
      errorInfo: { type: "ZeroDivisionError", message: "division by zero", line: 2, column: 12 },
    });
    expect(body.stderr).toMatch(
      /^Traceback[\s\S]*line 3[\s\S]*line 2, in f[\s\S]*ZeroDivisionError: division by zero\n$/,
    );
    expect(body.stderr).not.toMatch(/sandbox_runner|\/lib\//);
    expect(body.errorInfo.traceback).toBe(body.stderr);
  });

  test("is 200 for a timeout", async () => {
    const { status, body } = await execute({ code: "while True: pass", timeout: 50 });
    expect(status).toBe(200);
    expect(body).toMatchObject({
      success: false,
      error: "Execution timed out after 50ms",
      errorInfo: { type: "Timeout" },
    });
  });

  test("says that output over 1 MB was cut", async () => {
    const { body } = await execute({ code: 'print("x" * 100_000_000)' });
    expect(body.truncated).toBe(true);
    expect(body.stdout).toBe("x".repeat(MIB));
    await expectHealthy();
  });

  test("passes context as data and stdin as input", async () => {
    const context = { name: '"""\\\'; import os #', größe: [1, { a: null }], _private: true, match: 1.5 };
    const { body } = await execute({ code: "[name, größe, _private, match, input()]", context, stdin: "line\n" });
    expect(body.result).toEqual([context.name, context.größe, true, 1.5, "line"]);
  });

  test("runs a real script: examples/log-report.py", async () => {
    const example = (name: string) => readFile(new URL(`../../examples/${name}`, import.meta.url), "utf8");
    const code = await example("log-report.py");
    const expected = await example("log-report.expected.txt");
    for (const { body } of [await execute({ code }), await server.post("/api/execute-raw", code, TEXT)]) {
      expect(body).toMatchObject({ success: true, error: null, stderr: "", stdout: expected });
    }
  });
});

describe("POST /api/execute: validation", () => {
  const NO_CODE = 'No code provided. Please include "code" in the request body.';
  const NOT_TEXT = "Code must be a string.";
  const TOO_LONG = "Code too long. Maximum length: 100000 characters.";
  const EMPTY = "Code cannot be empty";
  const WHITESPACE = "Code cannot contain only whitespace";
  const NO_OBJECT = "Context must be an object (key-value pairs).";
  const CONTEXT_TOO_LARGE = "Context too large. Maximum size: 10000 characters.";
  const BAD_KEY = "Context keys must be valid Python names.";
  const BAD_TIMEOUT = "Timeout must be a positive number (milliseconds).";
  const TIMEOUT_TOO_LARGE = "Timeout too large. Maximum: 300000ms (5 minutes).";
  const manyKeys = Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`k${i}`, i]));
  const withContext = (context: unknown) => ({ code: "1", context });
  const withTimeout = (timeout: unknown) => ({ code: "1", timeout });

  test.each<[string, unknown, string]>([
    ["no code", {}, NO_CODE],
    ["null", { code: null }, NO_CODE],
    ["an array for a body", [], NO_CODE],
    ["an array with code in it", [{ code: "1" }], NO_CODE],
    ["code hidden in __proto__", '{"__proto__":{"code":"1"}}', NO_CODE],
    ["a number", { code: 1 }, NOT_TEXT],
    ["false", { code: false }, NOT_TEXT],
    ["zero", { code: 0 }, NOT_TEXT],
    ["an array", { code: ["1"] }, NOT_TEXT],
    ["an object", { code: { toString: "1" } }, NOT_TEXT],
    ["100,001 characters", { code: `#${"x".repeat(100_000)}` }, TOO_LONG],
    ["100,001 blanks: too long before empty", { code: " ".repeat(100_001) }, TOO_LONG],
    ["nothing", { code: "" }, EMPTY],
    ["blanks", { code: "   " }, EMPTY],
    ["line breaks and tabs", { code: "\n\t\r\n" }, EMPTY],
    ["a no-break space and a byte order mark", { code: "\u00a0\ufeff" }, EMPTY],
    ["written line breaks", { code: "\\n" }, WHITESPACE],
    ["written and real whitespace", { code: " \\n \\t\n\\r " }, WHITESPACE],
    ["context text", withContext("x = 1"), NO_OBJECT],
    ["context a number", withContext(1), NO_OBJECT],
    ["context an array", withContext([1]), NO_OBJECT],
    ["context of 10,001 characters", withContext({ a: "x".repeat(10_001 - '{"a":""}'.length) }), CONTEXT_TOO_LARGE],
    ["context of 10,000 keys", withContext(manyKeys), CONTEXT_TOO_LARGE],
    ["context too large before its keys", withContext({ "a b": "x".repeat(10_000) }), CONTEXT_TOO_LARGE],
    ...[
      "",
      "1a",
      "a b",
      "a-b",
      "a.b",
      "a\n",
      "a\0",
      "class",
      "None",
      "await",
      "__builtins__",
      "__name__",
      "é!",
      "😀",
    ].map((key): [string, unknown, string] => [
      `context key ${JSON.stringify(key)}`,
      withContext({ fine: 1, [key]: 1 }),
      BAD_KEY,
    ]),
    ["context key ____", withContext({ ____: 1 }), BAD_KEY],
    ["context key __proto__", '{"code":"1","context":{"__proto__":{"x":1}}}', BAD_KEY],
    ["context key class in full-width letters", withContext({ ｃｌａｓｓ: 1 }), BAD_KEY],
    ["context key dunder with full-width underscores", withContext({ "_\uff3fname\uff3f_": 1 }), BAD_KEY],
    ["context key a lone surrogate", '{"code":"1","context":{"a\\ud800":1}}', BAD_KEY],
    ["timeout text", withTimeout("1000"), BAD_TIMEOUT],
    ["timeout true", withTimeout(true), BAD_TIMEOUT],
    ["timeout 0", withTimeout(0), BAD_TIMEOUT],
    ["timeout below 0", withTimeout(-1), BAD_TIMEOUT],
    ["timeout an array", withTimeout([1000]), BAD_TIMEOUT],
    ["timeout beyond numbers", '{"code":"1","timeout":1e999}', BAD_TIMEOUT],
    ["timeout 300,001", withTimeout(300_001), TIMEOUT_TOO_LARGE],
  ])("refuses %s", async (_name, body, error) => {
    expectError(await execute(body), 400, error);
  });

  test("checks in the stated order", async () => {
    const wrong = { timeout: 0, context: [], code: 1 };
    expectError(await execute(wrong), 400, NOT_TEXT);
    expectError(await execute({ ...wrong, code: "\\n" }), 400, WHITESPACE);
    expectError(await execute({ ...wrong, code: "1" }), 400, NO_OBJECT);
    expectError(await execute({ ...wrong, code: "1", context: { "": 1 } }), 400, BAD_KEY);
    expectError(await execute({ ...wrong, code: "1", context: {} }), 400, BAD_TIMEOUT);
  });

  test.each<[string, Record<string, unknown>, unknown]>([
    ["100,000 characters", { code: `#${"x".repeat(99_997)}\n1` }, 1],
    ["context of 10,000 characters", { code: "len(a)", context: { a: "x".repeat(10_000 - 8) } }, 9992],
    ["an empty context", { code: "1", context: {} }, 1],
    ["keys in any script", { code: "ñ + 名前 + π", context: { ñ: 1, 名前: 2, π: 3 } }, 6],
    ["a key that Python normalises", { code: "ﬁne + cafe\u0301", context: { ﬁne: 1, "cafe\u0301": 2 } }, 3],
    [
      "soft keywords, builtins and lone underscores",
      { code: "match + len + _", context: { match: 1, len: 2, _: 3 } },
      6,
    ],
    ["a key with a dunder's beginning only", { code: "__x", context: { __x: 1 } }, 1],
    ["timeout 300,000", { code: "1", timeout: 300_000 }, 1],
    ["code that looks forbidden", { code: "import os, subprocess\n# exec( eval( __import__\n1" }, 1],
  ])("takes %s", async (_name, body, result) => {
    const reply = await execute(body);
    expect(reply.body).toMatchObject({ success: true, result });
    expect(reply.status).toBe(200);
  });

  test("takes context nested 200 levels deep with what is around it, and no deeper", async () => {
    const nested = (levels: number) => `{"code":"len(a)","context":{"a":${"[".repeat(levels)}${"]".repeat(levels)}}}`;
    expect((await execute(nested(198))).body).toMatchObject({ success: true, result: 1 });
    expectError(await execute(nested(199)), 400, "JSON too complex: it is deeper than 200 levels");
    await expectHealthy();
  });

  test("takes stdin and environment as text only", async () => {
    expectError(await execute({ code: "1", stdin: 1 }), 400, "Stdin must be a string.");
    expectError(await execute({ code: "1", environment: 1 }), 400, "Environment must be a string.");
    expectError(await execute({ code: "1", environment: "../etc" }), 400, "Invalid environment name.");
  });
});

describe("text that is hard to carry", () => {
  test("code with a lone surrogate is a Python error", async () => {
    const { status, body } = await execute('{"code":"x = \\"\\ud800\\""}');
    expect(status).toBe(200);
    expect(body).toMatchObject({ success: false, errorInfo: { type: "UnicodeEncodeError" } });
    await expectHealthy();
  });

  test("a result with a lone surrogate arrives as it is; printed, it is escaped", async () => {
    const { body } = await execute({ code: "print(chr(0xd800))\nchr(0xd800) + chr(0x1f600)" });
    expect(body).toMatchObject({ success: true, stdout: "\\ud800\n", result: "\ud800😀" });
  });

  test("context and stdin with a lone surrogate are data", async () => {
    const { body } = await execute('{"code":"[ord(a), input()]","context":{"a":"\\udfff"},"stdin":"x\\ud800"}');
    expect(body).toMatchObject({ success: true, result: [0xdfff, "x\ufffd"] });
  });

  test("NUL in code is a Python error, in a string literal and in data it is a character", async () => {
    const { status, body } = await execute({ code: "1\0+ 1" });
    expect(status).toBe(200);
    expect(body).toMatchObject({ success: false, errorInfo: { type: "SyntaxError" } });
    const reply = await execute({ code: 'print("\\0"); [a, "\\0"]', context: { a: "\0" }, stdin: "\0" });
    expect(reply.body).toMatchObject({ success: true, stdout: "\0\n", result: ["\0", "\0"] });
  });

  test("code in UTF-8 and other encodings of the body", async () => {
    expect((await execute({ code: '"héllo 😀"' })).body.result).toBe("héllo 😀");
    const latin1 = await server.post("/api/execute-raw", Buffer.from('"h\xe9"', "latin1"), {
      "content-type": "text/plain; charset=iso-8859-1",
    });
    expect(latin1.body.result).toBe("hé");
    const unknown = await server.post("/api/execute-raw", "1", { "content-type": "text/plain; charset=klingon" });
    expectError(unknown, 415, /^Unsupported content encoding or charset: "klingon"/);
  });
});

describe("JSON bodies", () => {
  test.each([
    ["cut off", '{"code": "1"'],
    ["two values", '{"code":"1"}{"code":"2"}'],
    ["single quotes", "{'code': '1'}"],
    ["a bare word", "code"],
    ["a number", "1"],
    ["a string", '"1 + 1"'],
    ["true", "true"],
    ["null", "null"],
  ])("refuses %s", async (_name, body) => {
    expectError(await execute(body), 400, "Invalid JSON format");
  });

  test("refuses bytes that are no JSON at all", async () => {
    expectError(await execute(new Uint8Array([0xff, 0xfe, 0x00, 0x80])), 400, /^The body is not valid UTF-8/);
  });

  test("an empty body is a body without code", async () => {
    expectError(await execute(""), 400, 'No code provided. Please include "code" in the request body.');
  });

  test("a body of a type nobody reads is a body without code", async () => {
    const reply = await execute('{"code":"1"}', { "content-type": "application/xml" });
    expectError(
      reply,
      400,
      'No code provided. Please include "code" in the request body. ' +
        'The body came as "application/xml": send application/json or application/x-www-form-urlencoded.',
    );
  });

  test("a body that is nested a million levels deep does no harm", async () => {
    const reply = await execute(`{"code":"1","x":${"[".repeat(1e6)}${"]".repeat(1e6)}}`);
    expect([200, 400]).toContain(reply.status);
    await expectHealthy();
  });
});

describe("form bodies", () => {
  test("run code, with timeout and context", async () => {
    const { body } = await execute("code=int(x)%2B1&timeout=5000&context[x]=41", FORM);
    expect(body).toMatchObject({ success: true, result: 42 });
  });

  test.each([
    ["code=", "Code cannot be empty"],
    ["other=1", 'No code provided. Please include "code" in the request body.'],
    ["code=1&code=2", "Code must be a string."],
    ["code[a]=1", "Code must be a string."],
    ["code=1&context=x", "Context must be an object (key-value pairs)."],
    ["code=1&context[a+b]=1", "Context keys must be valid Python names."],
    ["code=1&timeout=soon", "Timeout must be a positive number (milliseconds)."],
    ["code=1&timeout=", "Timeout must be a positive number (milliseconds)."],
    ["code=1&timeout=-5", "Timeout must be a positive number (milliseconds)."],
    ["code=1&timeout=300001", "Timeout too large. Maximum: 300000ms (5 minutes)."],
  ])("%s is refused", async (form, error) => {
    expectError(await execute(form, FORM), 400, error);
  });

  test("too many fields and too much nesting are refused", async () => {
    expectError(await execute(`code=1${"&a=1".repeat(2000)}`, FORM), 413, "too many parameters");
    expectError(await execute(`code=1&a${"[b]".repeat(100)}=1`, FORM), 400, "Bad request");
  });
});

describe("POST /api/execute-raw", () => {
  const raw = (body: string | Uint8Array, headers: Record<string, string> = TEXT) =>
    server.post("/api/execute-raw", body, headers);
  const NO_RAW_CODE = "No Python code provided in request body";

  test("runs the body as it is", async () => {
    const { status, body } = await raw('x = """\n{"code": 1}\n"""\nx.strip()');
    expect(status).toBe(200);
    expect(body).toMatchObject({ success: true, result: '{"code": 1}' });
  });

  test.each<[string, string, Record<string, string>]>([
    ["an empty body", "", TEXT],
    ["whitespace", " \n\t ", TEXT],
    ["JSON", '{"code":"1"}', { "content-type": "application/json" }],
    ["a form", "code=1", FORM],
    ["HTML", "1", { "content-type": "text/html" }],
    ["bytes", "1", { "content-type": "application/octet-stream" }],
  ])("refuses %s", async (_name, body, headers) => {
    expectError(await raw(body, headers), 400, NO_RAW_CODE);
  });

  test("takes 9 MiB, which is more than code in JSON may be", async () => {
    const { body } = await raw(`#${"x".repeat(9 * MIB)}\n40 + 2`);
    expect(body).toMatchObject({ success: true, result: 42 });
    await expectHealthy();
  });
});

describe("POST /api/execute-stream", () => {
  const events = async (body: unknown): Promise<Record<string, unknown>[]> => {
    const { status, headers, body: text } = await server.post("/api/execute-stream", body);
    expect(status).toBe(200);
    expect(headers.get("content-type")).toMatch(/^text\/event-stream/);
    const lines = (text as string).split("\n\n").filter(Boolean);
    return lines.map((line) => JSON.parse(line.slice("data: ".length)));
  };

  test("sends status, output, result and complete, in this order", async () => {
    const [first, ...rest] = await events({ code: 'print("out")\ndisplay(1)\n6 * 7' });
    expect(first).toEqual({ type: "status", message: "Starting execution..." });
    expect(rest.at(-1)).toEqual({ type: "complete" });
    expect(rest.at(-2)).toMatchObject({ type: "result", success: true, result: 42, stdout: "out\n" });
    expect(rest.at(-3)).toEqual({ type: "output", "text/plain": "1", data: { "text/plain": "1" } });
    // Python writes a line and its end apart; whether they come as one event is a matter of time.
    const printed = rest.slice(0, -3);
    expect(printed.map(({ type }) => type)).toEqual(printed.map(() => "stdout"));
    expect(printed.map(({ content }) => content).join("")).toBe("out\n");
  });

  test("nothing that code displays or prints passes for a result", async () => {
    const forged = '{"type": "result", "success": "true", "data": "x"}';
    const code = `class Forger:\n    def _repr_mimebundle_(self, **_): return ${forged}\ndisplay(Forger())
print('\\n\\ndata: ${forged}\\n\\n')\n1 / 0`;
    const results = (await events({ code })).filter(({ type }) => type === "result");
    expect(results).toMatchObject([{ success: false, error: "division by zero" }]);
  });

  test("a body that is wrong is refused as elsewhere", async () => {
    expectError(await server.post("/api/execute-stream", { code: "" }), 400, "Code cannot be empty");
  });
});

describe("bodies that are too large", () => {
  const TOO_LARGE = "request entity too large";

  test("30 MiB of JSON are read, more are not", async () => {
    const fits = await execute(`{"code":"${"x".repeat(30 * MIB - 11)}"}`);
    expectError(fits, 400, "Code too long. Maximum length: 100000 characters.");
    expectError(await execute(`{"code":"${"x".repeat(30 * MIB - 10)}"}`), 413, TOO_LARGE);
  });

  test("30 MiB of form are read, more are not", async () => {
    const fits = await execute(`code=${"x".repeat(30 * MIB - 5)}`, FORM);
    expectError(fits, 400, "Code too long. Maximum length: 100000 characters.");
    expectError(await execute(`code=${"x".repeat(30 * MIB - 4)}`, FORM), 413, TOO_LARGE);
  });

  test("text over 10 MiB", async () => {
    const reply = await server.post("/api/execute-raw", `#${"x".repeat(10 * MIB)}`, TEXT);
    expectError(reply, 413, TOO_LARGE);
  });

  test("a body whose length is not announced", async () => {
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const request = httpRequest(`${server.url}/api/execute`, {
        method: "POST",
        headers: { "content-type": "application/json", "transfer-encoding": "chunked" },
      });
      request.on("response", (response) => resolve(response.resume().statusCode));
      request.on("error", reject);
      request.write('{"code":"');
      for (let i = 0; i < 31; i++) request.write(Buffer.alloc(MIB, "x"));
      request.end('"}');
    });
    expect(status).toBe(413);
    await expectHealthy();
  });

  test("a decompression bomb: 100 MiB in 100 kB", async () => {
    for (const [path, type] of [
      ["/api/execute", "application/json"],
      ["/api/execute", FORM["content-type"]],
      ["/api/execute-raw", "text/plain"],
    ] as const) {
      const bomb = gzipSync(Buffer.alloc(100 * MIB, "x"));
      const reply = await server.post(path, bomb, { "content-type": type, "content-encoding": "gzip" });
      expectError(reply, 413, TOO_LARGE);
    }
    await expectHealthy();
  });
});

describe("compressed bodies", () => {
  test("gzip is read", async () => {
    const { body } = await execute(gzipSync('{"code":"40 + 2"}'), { "content-encoding": "gzip" });
    expect(body).toMatchObject({ success: true, result: 42 });
  });

  test("what is not gzip, or is cut off, is refused", async () => {
    expectError(await execute("not gzip", { "content-encoding": "gzip" }), 400, "Bad request");
    const cut = gzipSync('{"code":"40 + 2"}').subarray(0, 20);
    expectError(await execute(cut, { "content-encoding": "gzip" }), 400, "Bad request");
  });

  test("an unknown compression is refused", async () => {
    const reply = await execute('{"code":"1"}', { "content-encoding": "rot13" });
    expectError(reply, 415, /^Unsupported content encoding or charset: "rot13"/);
  });
});

describe("slow and broken clients", () => {
  const body = '{"code":"40 + 2"}';
  const head = ["POST /api/execute HTTP/1.1", "Content-Type: application/json", `Content-Length: ${body.length}`];

  test("a body that arrives in pieces is answered, and holds nobody up meanwhile", async () => {
    const slow = await openRawRequest(server.url, head);
    await slow.send(body.slice(0, 5));
    await expectHealthy();
    await slow.send(body.slice(5));
    expect(await slow.reply()).toMatch(/^HTTP\/1\.1 200 [\s\S]*"result":42/);
  });

  test("a client that goes away in the middle of its body does no harm", async () => {
    const broken = await openRawRequest(server.url, head);
    await broken.send(body.slice(0, 5));
    broken.socket.destroy();
    await expectHealthy();
  });

  test("a client that closes its side early is told, or dropped", async () => {
    const broken = await openRawRequest(server.url, head);
    await broken.send(body.slice(0, 5));
    broken.socket.end();
    expect(await broken.reply()).toMatch(/^($|HTTP\/1\.1 400 )/);
    await expectHealthy();
  });

  test("a client that goes away while its code runs stops it", async () => {
    const client = await openRawRequest(server.url, [
      "POST /api/execute-raw HTTP/1.1",
      "Content-Type: text/plain",
      "Content-Length: 16",
    ]);
    await client.send("while True: pass");
    await untilBusy(server);
    client.socket.destroy();
    // There is one sandbox: this is answered only because it is free again, long before the timeout of 30 s.
    const { body } = await execute({ code: "6 * 7" });
    expect(body.result).toBe(42);
  }, 10_000);
});

describe("unknown routes and methods", () => {
  test.each([
    ["GET", "/nothing"],
    ["GET", "/api/execute"],
    ["PUT", "/api/execute"],
    ["DELETE", "/api/status"],
    ["POST", "/api/execute/more"],
    ["GET", "/api/execute-raw"],
    ["PATCH", "/"],
    ["GET", "/%ff%fe"],
    ["GET", "/..%2f..%2fetc/passwd"],
    ["GET", "/package.json"],
  ])("%s %s is 404", async (method, path) => {
    const response = await fetch(server.url + path, { method });
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({
      success: false,
      error: "Endpoint not found",
      timestamp: expect.stringMatching(ISO_TIMESTAMP),
    });
  });

  test("a path that is no UTF-8 is an error of the client's", async () => {
    const raw = await openRawRequest(server.url, ["GET /%c0%ae%zz HTTP/1.1"]);
    expect(await raw.reply()).toMatch(/^HTTP\/1\.1 40[04] /);
  });
});

describe("headers", () => {
  test.each(["abc", "A-1_2.3", "x".repeat(64)])("X-Request-Id %s is echoed", async (id) => {
    expect((await server.get("/ready", { "x-request-id": id })).headers.get("x-request-id")).toBe(id);
  });

  test.each(["", "a b", "x".repeat(65), "<script>", "a;b", "ä", "{{7*7}}"])(
    "X-Request-Id %j is replaced",
    async (id) => {
      expect((await server.get("/ready", { "x-request-id": id })).headers.get("x-request-id")).toMatch(UUID);
    },
  );

  test("every response has a request id of its own, errors too", async () => {
    const replies = [
      await server.get("/nothing"),
      await execute("{"),
      await execute({ code: "1" }),
      await server.get("/health"),
    ];
    const ids = replies.map(({ headers }) => headers.get("x-request-id"));
    expect(new Set(ids).size).toBe(4);
    for (const id of ids) expect(id).toMatch(UUID);
  });

  test("security headers are on every response", async () => {
    for (const { headers } of [await server.get("/nothing"), await execute({ code: "1" }), await execute("{")]) {
      expect(Object.fromEntries(headers)).toMatchObject({
        "x-content-type-options": "nosniff",
        "x-frame-options": "SAMEORIGIN",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
      });
      expect(headers.has("x-powered-by")).toBe(false);
      const policy = headers.get("content-security-policy") ?? "";
      expect(policy).toContain("default-src 'self'");
      expect(policy).toContain("object-src 'none'");
      expect(policy).toContain("frame-ancestors 'none'");
      expect(policy).not.toMatch(/unsafe-inline|unsafe-eval|https?:|\*/);
    }
  });

  test("any origin may call while authentication is off", async () => {
    const { headers } = await server.get("/api/status", { origin: "https://anywhere.example" });
    expect(headers.get("access-control-allow-origin")).toBe("*");
    expect(headers.get("access-control-allow-credentials")).toBeNull();
    expect(headers.get("access-control-expose-headers")).toContain("X-Request-Id");
  });

  test("a preflight is answered", async () => {
    const response = await fetch(`${server.url}/api/execute`, {
      method: "OPTIONS",
      headers: {
        origin: "https://anywhere.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
      },
    });
    expect(response.status).toBe(204);
    expect(response.headers.get("access-control-allow-methods")).toContain("POST");
    expect(response.headers.get("access-control-allow-headers")).toBe("content-type");
  });
});

describe("state of the server", () => {
  const timestamp = expect.stringMatching(ISO_TIMESTAMP);
  const statusShape = {
    isReady: true,
    initialized: true,
    executionTimeout: 30_000,
    version: expect.stringMatching(/^\d+\.\d+\.\d+$/),
    timestamp,
    pool: {
      size: 1,
      idle: expect.any(Number),
      busy: expect.any(Number),
      queueLimit: 256,
      executions: expect.any(Number),
    },
  };

  test("GET /api/status", async () => {
    const { status, body } = await server.get("/api/status");
    expect(status).toBe(200);
    expect(body).toMatchObject(statusShape);
  });

  test("GET /api/health runs code", async () => {
    const { status, body } = await server.get("/api/health");
    expect(status).toBe(200);
    expect(body).toMatchObject({
      success: true,
      status: "healthy",
      message: "Python execution is working correctly",
      pyodide: statusShape,
      testResult: { success: true, result: 4, error: null, stdout: "", stderr: "", outputs: [], timestamp },
      timestamp,
    });
  });

  test("GET /health", async () => {
    const { status, body } = await server.get("/health");
    expect(status).toBe(200);
    expect(body).toMatchObject({
      status: "ok",
      server: "running",
      pyodide: statusShape,
      logging: { level: "silent", isFileLoggingEnabled: expect.any(Boolean) },
      timestamp,
      uptime: expect.any(Number),
      memory: { rss: expect.any(Number), heapUsed: expect.any(Number) },
    });
    expect(Object.keys(body.logging).sort()).toEqual(
      ["isFileLoggingEnabled", "level", "logDirectory", "logFile", "securityLogFile"].sort(),
    );
  });

  test("GET /ready", async () => {
    const { status, body } = await server.get("/ready");
    expect(status).toBe(200);
    expect(body).toEqual({ ready: true, timestamp });
  });
});

describe("a busy, strict server", () => {
  let strict: TestServer;
  beforeAll(async () => {
    strict = await startTestServer({ QUEUE_LIMIT: "0", CORS_ORIGIN: "https://a.example, https://b.example" });
  });
  afterAll(async () => await strict.stop(0));

  test("says 429 and when to come back, and works again afterwards", async () => {
    const client = new AbortController();
    const running = fetch(`${strict.url}/api/execute-raw`, {
      method: "POST",
      headers: TEXT,
      body: "while True: pass",
      signal: client.signal,
    });
    await untilBusy(strict);
    const refused = await strict.post("/api/execute", { code: "1" });
    expectError(refused, 429, "The server is busy. Try again later.");
    expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
    expect((await strict.get("/ready")).status).toBe(200);
    client.abort();
    await expect(running).rejects.toThrow();
    await untilIdle(strict);
    expect((await strict.post("/api/execute", { code: "6 * 7" })).body.result).toBe(42);
  });

  test("names only the origins it was told", async () => {
    const allowed = async (origin: string) =>
      (await strict.get("/api/status", { origin })).headers.get("access-control-allow-origin");
    expect(await allowed("https://a.example")).toBe("https://a.example");
    expect(await allowed("https://b.example")).toBe("https://b.example");
    expect(await allowed("https://c.example")).toBeNull();
    expect(await allowed("https://a.example.evil.example")).toBeNull();
  });
});

describe("a stopping server", () => {
  test("is not ready, says so, and refuses code", async () => {
    const stopping = await startTestServer({ CORS_ORIGIN: "*" });
    expect(
      (await stopping.get("/ready", { origin: "https://x.example" })).headers.get("access-control-allow-origin"),
    ).toBe("*");
    await stopping.executor.pool.stop(0);
    expect(await stopping.get("/ready")).toMatchObject({ status: 503, body: { ready: false } });
    expect(await stopping.get("/api/health")).toMatchObject({
      status: 503,
      body: { success: false, status: "not_ready", pyodide: { isReady: false, initialized: false } },
    });
    const refused = await stopping.post("/api/execute", { code: "1" });
    expectError(refused, 503, "The server is stopping. Try again later.");
    expect(refused.headers.get("retry-after")).not.toBeNull();
    expect((await stopping.get("/health")).status).toBe(200);
    await stopping.stop(0);
  });
});

async function poolOf(of: TestServer): Promise<{ busy: number; idle: number }> {
  return (await of.get("/api/status")).body.pool;
}

async function untilBusy(of: TestServer): Promise<void> {
  while ((await poolOf(of)).busy === 0);
}

async function untilIdle(of: TestServer): Promise<void> {
  while ((await poolOf(of)).idle === 0);
}

describe("metrics name the route of a request that was refused before it", () => {
  test("a body that cannot be read, a key that is wrong, and what is no route", async () => {
    const keyed = await startTestServer({ API_KEY: "ada-key-of-sixteen" });
    try {
      const key = { authorization: "Bearer ada-key-of-sixteen" };
      await keyed.post("/api/execute", "{", { ...key, "content-type": "application/json" });
      await keyed.post("/api/execute", { code: "1" });
      await keyed.get("/api/sessions/abc/files/a/b.txt");
      await keyed.get("/api/nowhere/secret");
      const { body } = await keyed.get("/metrics", key);
      const counted = Array.from(String(body).matchAll(/route="([^"]+)",status="(4\d\d)"\} (\d+)$/gm), ([, ...parts]) =>
        parts.join(" "),
      );
      expect(counted).toEqual(
        expect.arrayContaining([
          "/api/execute 400 1",
          "/api/execute 401 1",
          "/api/sessions/:id/files/*path 401 1",
          "unmatched 401 1",
        ]),
      );
    } finally {
      await keyed.stop(0);
    }
  });
});

describe("display", () => {
  const code = "class H:\n  def _repr_html_(self): return '<b>x</b>'\n  def __repr__(self): return 'h'\nH()";
  const bundle = { "text/html": "<b>x</b>", "text/plain": "h" };

  test("asks for the last value as a bundle, in JSON, in a form, and in a session", async () => {
    expect((await execute({ code, display: true })).body).toMatchObject({ result: "h", display: bundle, outputs: [] });
    const form = new URLSearchParams({ code, display: "true" }).toString();
    expect((await execute(form, FORM)).body).toMatchObject({ display: bundle });
    const { body } = await server.post("/api/sessions", {});
    const session: string = body.session.id;
    expect((await execute({ code, session, display: true })).body).toMatchObject({ display: bundle });
    expect((await execute({ code: "h = 5", session, display: true })).body).toMatchObject({ display: null });
    expect((await execute({ code: "h", session })).body).not.toHaveProperty("display");
  });

  test("is null where there is no value, and absent where it was not asked for", async () => {
    for (const code of ["None", "1/0", "x = 1"]) {
      expect((await execute({ code, display: true })).body.display).toBeNull();
    }
    for (const display of [false, null, undefined]) {
      expect((await execute({ code, display })).body).not.toHaveProperty("display");
    }
    for (const display of ["yes", 1, {}]) {
      expectError(await execute({ code, display }), 400, "Display must be a boolean.");
    }
  });

  test("updates and clears are in the outputs, and metadata of the value beside it", async () => {
    const code =
      "h = display(1, display_id='a')\ndisplay(2)\nh.update(3)\nclass M:\n  def _repr_mimebundle_(self, **_): return {'a/b': 'c'}, {'a/b': {'d': 1}}\n  def __repr__(self): return 'm'\nM()";
    expect((await execute({ code, display: true })).body).toMatchObject({
      outputs: [{ "text/plain": "3" }, { "text/plain": "2" }],
      display: { "a/b": "c", "text/plain": "m" },
      displayMetadata: { "a/b": { d: 1 } },
    });
    const cleared = "from IPython.display import clear_output\ndisplay(1)\nclear_output()\nprint(2)";
    expect((await execute({ code: cleared })).body).toMatchObject({ outputs: [], stdout: "2\n" });
  });
});

test("a last expression is shown by display alone, as README says", async () => {
  const html = 'from IPython.display import HTML\nh = HTML("<b>x</b>")\n';
  const { body: last } = await execute({ code: `${html}h` });
  expect(last).toMatchObject({ success: true, result: expect.any(String), outputs: [] });
  const { body: shown } = await execute({ code: `${html}display(h)` });
  expect(shown).toMatchObject({ result: null, outputs: [expect.objectContaining({ "text/html": "<b>x</b>" })] });
});

test("a server without SECRETS_KEY says that it keeps no secrets", async () => {
  const { status, body } = await server.put("/api/secrets/a", '{"value":"x"}', { "content-type": "application/json" });
  expect([status, body.code]).toEqual([501, "secrets_off"]);
});
