import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

const MIB = 1024 * 1024;
const FORM = { "content-type": "application/x-www-form-urlencoded" };

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server.stop(0));

const send = (body: string | Uint8Array, headers: Record<string, string> = {}) =>
  server.post("/api/execute", body, { "content-type": "application/json", ...headers });

describe("numbers of a context are Python's, not JavaScript's", () => {
  const shown = async (context: string, headers?: Record<string, string>): Promise<unknown> =>
    (await send(`{"code": "[repr(v) for v in d] if 'd' in globals() else repr(x)", "context": ${context}}`, headers))
      .body.result;

  test.each([
    ["9007199254740993", "9007199254740993"],
    ["123456789012345678901234567890", "123456789012345678901234567890"],
    ["-18446744073709551616", "-18446744073709551616"],
    ["1.0", "1.0"],
    ["-0.0", "-0.0"],
    ["-0", "0"],
    ["1e2", "100.0"],
    ["1E400e", null],
    ["0.1", "0.1"],
    ["1e-400", "0.0"],
    ["1.7976931348623157e308", "1.7976931348623157e+308"],
    ["100000000000000000000000.5", "1.0000000000000001e+23"],
    ['"1e400"', "'1e400'"],
    ['{"y": [1.0, 12345678901234567890]}', "{'y': [1.0, 12345678901234567890]}"],
    ['" \\u00e9\\ud83d\\ude00 \\" \\\\ "', "' é😀 \" \\\\ '"],
    ["true", "True"],
  ])("%s", async (source, expected) => {
    if (expected === null) expect((await send(`{"code": "1", "context": {"x": ${source}}}`)).status).toBe(400);
    else expect(await shown(`{"x": ${source}}`)).toBe(expected);
  });

  test("an integer of ten thousand digits", async () => {
    const digits = "7".repeat(9990);
    const { body } = await send(
      `{"code": "import sys\\n[x % 10**9, x.bit_length(), sys.get_int_max_str_digits()]", "context": {"x":${digits}}}`,
    );
    expect(body.result).toEqual([777777777, BigInt(digits).toString(2).length, 4300]);
  });

  test.each(["1e400", "-1e400", "1.5E+309", "17976931348623157e300", '{"y": [0, 1e999]}'])(
    "%s is an error that says so",
    async (source) => {
      const { status, body } = await send(`{"code": "1", "context": {"x": ${source}}}`);
      expect(status).toBe(400);
      const number = /-?\d[\d.]*[eE][+\d]*/.exec(source)?.[0];
      expect(body.error).toBe(`Context numbers must be finite: ${number} is beyond what a float can hold.`);
    },
  );

  test.each(["NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "0x10", "1_000"])(
    "%s is not JSON",
    async (source) => {
      const { status, body } = await send(`{"code": "1", "context": {"x": ${source}}}`);
      expect([status, body.error]).toEqual([400, "Invalid JSON format"]);
    },
  );

  test("wherever it stands in the body, under whatever spelling of its name; the last one counts", async () => {
    const big = "12345678901234567890";
    for (const body of [
      `{"context":{"x":${big}},"code":"repr(x)"}`,
      `{ "stdin" : "{\\"context\\": 1}" , "code":"repr(x)" ,\n "context"\t: { "x" :\n${big} } }`,
      `{"\\u0063ontext":{"x":${big}},"code":"repr(x)"}`,
      `{"context":{"x":1},"code":"repr(x)","context":{"x":${big}}}`,
      `{"context":{"x":1,"x":${big}},"code":"repr(x)"}`,
      `{"files":"none","context":{"ｘ":${big}},"code":"repr(x)"}`,
      `\ufeff{"context":{"x":${big}},"code":"repr(x)"}`,
    ]) {
      expect((await send(body)).body.result, body).toBe(big);
    }
    const utf16 = Buffer.from(`{"context":{"x":${big}},"code":"repr(x)"}`, "utf16le");
    expect((await send(utf16, { "content-type": "application/json; charset=utf-16" })).body.result).toBe(big);
    const large = `{"code":"repr(x)","stdin":"${"y".repeat(500_000)}","context":{"x":${big}}}`;
    expect((await send(large)).body.result).toBe(big);
    expect((await send(gzipSync(large), { "content-encoding": "gzip" })).body.result).toBe(big);
  });

  test("in forms, sessions and streams", async () => {
    const big = "12345678901234567890";
    const form = new URLSearchParams({ code: "[repr(x), repr(y)]", context: `{"x": ${big}, "y": -0.0}` });
    expect((await server.post("/api/execute", form.toString(), FORM)).body.result).toEqual([big, "-0.0"]);
    const nested = new URLSearchParams({ code: "x", "context[x]": big });
    expect((await server.post("/api/execute", nested.toString(), FORM)).body.result).toBe(big);
    const inText = new URLSearchParams({ code: "1", context: "[1]" });
    expect((await server.post("/api/execute", inText.toString(), FORM)).body.error).toBe(
      "Context must be an object (key-value pairs).",
    );
    // All of a form is text: every number and every flag is read from it.
    const ttl = new URLSearchParams({ ttl: "60" });
    const made = await server.post("/api/sessions", ttl.toString(), FORM);
    expect(made.status).toBe(201);
    const { createdAt, expiresAt } = made.body.session;
    expect(Date.parse(expiresAt) - Date.parse(createdAt)).toBe(60_000);
    const wrong = await server.post("/api/sessions", new URLSearchParams({ ttl: "soon" }).toString(), FORM);
    expect([wrong.status, wrong.body.error]).toEqual([400, "Ttl must be a positive number (seconds)."]);
    const checked = new URLSearchParams({ code: "1", check: "false", timeout: "5000" });
    expect((await server.post("/api/execute", checked.toString(), FORM)).body).toMatchObject({ result: 1 });
    const infinite = new URLSearchParams({ code: "1", context: '{"x": 1e400}' });
    expect((await server.post("/api/execute", infinite.toString(), FORM)).body.error).toContain("1e400");
    const { session } = (await server.post("/api/sessions", {})).body as unknown as { session: { id: string } };
    const inSession = `{"session": "${session.id}", "code": "repr(x)", "context": {"x": ${big}}}`;
    expect((await send(inSession)).body.result).toBe(big);
    const stream = await server.post("/api/execute-stream", `{"code": "repr(x)", "context": {"x": 1.0}}`, {
      "content-type": "application/json",
    });
    expect(JSON.stringify(stream.body)).toContain("1.0");
  });

  test("what counts as its size is the data, not how it was written", async () => {
    const at = (length: number) => `{"x":"${"y".repeat(length - 8)}"}`;
    const sized = async (context: string) => (await send(`{"code": "len(x)", "context": ${context}}`)).body;
    expect((await sized(at(10_000))).result).toBe(9_992);
    expect((await sized(at(10_001))).error).toBe("Context too large. Maximum size: 10000 characters.");
    expect((await sized(at(10_000).replaceAll("y", "\\u00e9"))).result).toBe(9_992);
    expect((await sized(at(10_000).replace(":", `:${" \n".repeat(50_000)}`))).result).toBe(9_992);
    expect((await sized(`{"x":[${"1,".repeat(20_000)}1]}`)).error).toContain("Context too large");
    expect((await sized(`{"x":${"1".repeat(200_000)}}`)).error).toContain("Context too large");
  });

  test("a name that Python would have to normalise has 255 characters at the most", async () => {
    const named = async (name: string) =>
      (await send(JSON.stringify({ code: "max(map(len, globals()))", context: { [name]: 1 } }))).body;
    // The first mark and the letter become one character.
    expect((await named(`a${"\u0315\u0300".repeat(127)}`)).result).toBe(254);
    expect((await named(`a${"\u0315\u0300".repeat(128)}`)).error).toBe("Context keys must be valid Python names.");
    expect((await named("a".repeat(5_000))).result).toBe(5_000);
  });
});

describe("what is not parsed", () => {
  const deep = (levels: number) => `{"code":"1","x":${"[".repeat(levels)}${"]".repeat(levels)}}`;
  test("is deeper than 200 levels", async () => {
    expect((await send(deep(199))).body).toMatchObject({ success: true });
    const { status, body } = await send(deep(200));
    expect([status, body.code, body.error]).toEqual([
      400,
      "json_too_complex",
      "JSON too complex: it is deeper than 200 levels",
    ]);
    const only = gzipSync(Buffer.alloc(30 * MIB, "["));
    expect(only.length).toBeLessThan(35_000);
    for (const path of [
      "/api/execute",
      "/api/execute-stream",
      "/api/sessions",
      "/api/install-package",
      "/api/reset",
      "/api/nowhere",
    ]) {
      const reply = await server.post(path, only, { "content-type": "application/json", "content-encoding": "gzip" });
      expect([path, reply.status, reply.body.code]).toEqual([path, 400, "json_too_complex"]);
    }
  });

  test("has more than 50,000 values", async () => {
    const values = (count: number) => `{"code":"1","x":[${"1,".repeat(count - 1)}1]}`;
    expect((await send(values(49_000))).body).toMatchObject({ success: true });
    expect((await send(values(60_000))).body).toMatchObject({ success: false, code: "json_too_complex" });
    const many = gzipSync(`[${'{"34":0},'.repeat(3_000_000)}0]`);
    expect((await send(many, { "content-encoding": "gzip" })).body.code).toBe("json_too_complex");
  });

  test("has a name of a member that is too long, in JSON and in forms", async () => {
    const long = (characters: number) => "k".repeat(characters);
    const form = (name: string) => server.post("/api/execute", `code=1&${name}=1`, FORM);
    expect((await send(`{"code":"1","${long(10_000)}":1}`)).body).toMatchObject({ result: 1 });
    expect((await send(`{"code":"1","x":{"${long(10_001)}":1}}`)).body).toMatchObject({
      code: "json_too_complex",
      error: "JSON too complex: it has a name of more than 10000 bytes",
    });
    expect((await form(long(10_000))).body).toMatchObject({ result: 1 });
    for (const name of [long(10_001), `context[${long(10_000)}]`, "%6b".repeat(10_001)])
      expect((await form(name)).body).toMatchObject({
        code: "json_too_complex",
        error: "Form too complex: a name has more than 10000 characters",
      });
    // What is read in a thread, too.
    const many = Array.from({ length: 900 }, (_, i) => `${long(16_390)}${i}=1`).join("&");
    expect((await form(many)).body.code).toBe("json_too_complex");
  });

  test.each(["gzip", "deflate", "br"])("is more than 30 MB once it is inflated, %s", async (encoding) => {
    const { brotliCompressSync, deflateSync } = await import("node:zlib");
    const compress = { gzip: gzipSync, deflate: deflateSync, br: brotliCompressSync }[encoding] as typeof gzipSync;
    const reply = await send(compress(Buffer.alloc(31 * MIB, " ")), { "content-encoding": encoding });
    expect([reply.status, reply.body.error]).toEqual([413, "request entity too large"]);
  });

  test("is no JSON, however large", async () => {
    for (const body of [
      `{"code":"${"x".repeat(5 * MIB)}`,
      `${" ".repeat(MIB)}`,
      `{"code":"\\x${"x".repeat(MIB)}"}`,
      "1",
      '"x"',
      "null",
      "[1,]",
      '{"a":1,}',
      "{'a':1}",
      "{a:1}",
      '{"a":1}x',
      '"\\ud800"',
    ]) {
      expect((await send(body)).body.error, body.slice(0, 20)).toBe("Invalid JSON format");
    }
  });

  test("is a form with more parameters, or deeper, than there can be", async () => {
    const form = (body: string) => server.post("/api/execute", body, FORM);
    expect((await form(`code=1&${"a=1&".repeat(1100)}`)).status).toBe(413);
    expect((await form("&".repeat(20 * MIB))).status).toBe(413);
    expect((await form(`code=1&a${"[b]".repeat(1000)}=1`)).status).toBe(400);
    expect((await form(`code=1&stdin=${"%41".repeat(300_000)}`)).body).toMatchObject({ success: true, result: 1 });
    expect((await form(`code=${"%41".repeat(5_000_000)}`)).body.error).toContain("Code too long");
  });
});

test("a body of the largest size is read, and stdin of a million characters reaches the code", async () => {
  const stdin = "é".repeat(1_000_000);
  expect((await send(JSON.stringify({ code: "len(input())", stdin }))).body.result).toBe(1_000_000);
  const filled = JSON.stringify({ code: "1", filler: "x".repeat(29 * MIB) });
  expect((await send(filled)).body).toMatchObject({ success: true, result: 1 });
});

test.each([
  ["a context of 29 MB in JSON", `{"code":"1","context":{"a":"${"x".repeat(29 * MIB)}"}}`, {}, "Context too large"],
  ["a context of 29 MB in a form", `code=1&context={"a":"${"x".repeat(29 * MIB)}"}`, FORM, "Context too large"],
  ["a context of a form's members", `code=1&context[a]=${"x".repeat(29 * MIB)}`, FORM, "Context too large"],
  [
    "a context of 100,000 values in a form",
    `code=1&context={"a":[${"1,".repeat(100_000)}1]}`,
    FORM,
    "Context must be an object",
  ],
  ["code of millions of escapes", `{"code":"${"\\\\n".repeat(7_000_000)}"}`, {}, "Code too long"],
  [
    "49,000 members that the schema does not name",
    `{${Array.from({ length: 49_000 }, (_, n) => `"k${n}":1`).join()}}`,
    {},
    "No code provided",
  ],
] as const)("%s is a 400 that says what is wrong", { timeout: 60_000 }, async (_what, body, headers, error) => {
  const reply = await send(body, headers);
  expect(reply.status).toBe(400);
  expect(reply.body.error).toContain(error);
});

test("29 MB of white space around a context of nothing are nothing", { timeout: 60_000 }, async () => {
  const space = " ".repeat(14 * MIB);
  expect((await send(`code=1&context={${space}${space}}`, FORM)).body).toMatchObject({ success: true, result: 1 });
  expect((await send(`{"code":"x","context":{${space}"x":${space}1}}`)).body).toMatchObject({ result: 1 });
});
