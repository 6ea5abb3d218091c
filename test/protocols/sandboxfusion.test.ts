import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createClient, type Reply, type TestClient } from "../support/client.ts";
import { TEST_WHEELS } from "../support/config.ts";
import { leaveWhileItRuns } from "../support/leave-while-it-runs.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const ALICE = "a-key-of-fusion-tests";
let server: TestServer;
let client: TestClient;

beforeAll(async () => {
  server = await startTestServer({ API_KEYS: `alice:${ALICE}` });
  client = createClient(server.url, { "x-api-key": ALICE });
});
afterAll(async () => await server.stop(0));

/** As its Python client sends it: with every member. */
const run = async (code: string, more: Record<string, unknown> = {}): Promise<Reply> =>
  await client.post("/run_code", {
    compile_timeout: 10,
    run_timeout: 10,
    memory_limit_MB: -1,
    code,
    stdin: null,
    language: "python",
    files: {},
    fetch_files: [],
    ...more,
  });
const jupyter = async (cells: readonly string[], more: Record<string, unknown> = {}): Promise<Reply> =>
  await client.post("/run_jupyter", {
    cells,
    cell_timeout: 0,
    total_timeout: 45,
    kernel: "python3",
    files: {},
    fetch_files: [],
    ...more,
  });
const base64 = (text: string) => Buffer.from(text).toString("base64");

test("a program runs, and its reply is SandboxFusion's", async () => {
  expect(await run("print(123)")).toMatchObject({
    status: 200,
    body: {
      status: "Success",
      message: "",
      compile_result: null,
      executor_pod_name: null,
      files: {},
      run_result: {
        status: "Finished",
        return_code: 0,
        stdout: "123\n",
        stderr: "",
        execution_time: expect.any(Number),
      },
    },
  });
});

test("a failing program is Failed, with its traceback and status", async () => {
  expect((await run("assert 1 == 2")).body).toMatchObject({
    status: "Failed",
    run_result: { status: "Finished", return_code: 1, stderr: expect.stringMatching(/AssertionError\n$/) },
  });
  expect((await run("int a = 1")).body.run_result.stderr).toContain("SyntaxError: invalid syntax");
  expect((await run("import sys; sys.exit(4)")).body.run_result).toMatchObject({ return_code: 4, stderr: "" });
});

test("a program that takes too long is stopped", async () => {
  expect((await run("print(1)\nwhile True: pass", { run_timeout: 0.2 })).body).toMatchObject({
    status: "Failed",
    run_result: { status: "TimeLimitExceeded", return_code: null, stdout: "1\n" },
  });
});

test("standard input is read", async () => {
  expect((await run("print(int(input()))", { stdin: "65535" })).body.run_result.stdout).toBe("65535\n");
});

test("files come in, and those that are asked for go out", async () => {
  const { body } = await run(
    "print(open('a/b/c').read())\nopen('out.bin','wb').write(b'\\x00\\xff')\nopen('/tmp/t','w').write('tmp')",
    {
      files: { "a/b/c": base64("in"), nothing: null },
      fetch_files: ["out.bin", "/tmp/t", "a/b/c", "not-there", "/etc/passwd", "../../etc/passwd", "a"],
    },
  );
  expect(body).toMatchObject({ status: "Success", run_result: { stdout: "in\n" } });
  expect(body.files).toEqual({
    "out.bin": Buffer.from([0, 255]).toString("base64"),
    "/tmp/t": base64("tmp"),
    "a/b/c": base64("in"),
  });
});

test("a large file comes whole", async () => {
  const content = Buffer.from(Array.from({ length: 200_000 }, (_, index) => index % 251));
  const code = "open('out','wb').write(bytes(index % 251 for index in range(200_000)))";
  for (const { body } of [await run(code, { fetch_files: ["out"] }), await jupyter([code], { fetch_files: ["out"] })])
    expect(body).toMatchObject({ status: "Success", files: { out: content.toString("base64") } });
});

test("one file under many spellings is refused before it is made a reply", async () => {
  const code = "open('out','wb').write(bytes(4 * 1024 * 1024))";
  const spellings = Array.from({ length: 9 }, (_, index) => `${"./".repeat(index)}out`);
  const message = "fetch_files: 37748736 bytes; at most 33554432 can be fetched.";
  expect(await run(code, { fetch_files: spellings })).toMatchObject({ status: 400, body: { detail: message } });
  expect(await jupyter([code], { fetch_files: spellings })).toMatchObject({ status: 400, body: { detail: message } });
});

test("another language is an error of the sandbox's that says what there is", async () => {
  expect(await run("int main(){}", { language: "cpp" })).toMatchObject({
    status: 200,
    body: {
      status: "SandboxError",
      message: "The language cpp is not there: this server runs python.",
      run_result: null,
    },
  });
});

test.each([
  ["/run_code", { code: undefined }, "code must be a string"],
  ["/run_code", { language: undefined }, "language must be a string"],
  ["/run_code", { run_timeout: "5" }, "run_timeout must be a number of seconds"],
  ["/run_code", { run_timeout: -1 }, "A timeout must be a positive number of seconds."],
  ["/run_code", { files: { a: 5 } }, "files must be base64 texts by their paths"],
  ["/run_code", { fetch_files: [1] }, "fetch_files must be paths"],
  ["/run_jupyter", { cells: [1] }, "cells must be strings"],
  ["/run_jupyter", { kernel: "bash" }, "kernel must be python3"],
])("%s refuses %j", async (path, wrong, detail) => {
  const right = path === "/run_code" ? { code: "1", language: "python" } : { cells: ["1"] };
  expect(await client.post(path, { ...right, ...wrong })).toMatchObject({ status: 422, body: { detail } });
});

test("a file outside of the folders that programs have is refused, and so are bodies that are no JSON", async () => {
  for (const name of ["/etc/x", "../x", "a/", "a\0b"])
    expect(await run("1", { files: { [name]: "" } })).toMatchObject({
      status: 400,
      body: { detail: expect.any(String) },
    });
  expect(await client.post("/run_code", "{")).toMatchObject({ status: 400, body: { detail: expect.any(String) } });
  expect(await client.post("/run_code", "[]")).toMatchObject({ status: 422 });
});

test("a key may be in the address, and without one there is nothing but the ping", async () => {
  const ask = async (authorization?: string) =>
    (
      await createClient(server.url, authorization === undefined ? {} : { authorization }).post("/run_code", {
        code: "1",
        language: "python",
      })
    ).status;
  expect(await ask(`Basic ${base64(`any:${ALICE}`)}`)).toBe(200);
  expect(await ask(`Basic ${base64(`${ALICE}:`)}`)).toBe(200);
  expect(await ask(`Basic ${base64("any:another-key-0123456789")}`)).toBe(401);
  expect(await ask(`Basic ${base64("")}`)).toBe(401);
  expect(await ask()).toBe(401);
  expect(await createClient(server.url).get("/v1/ping")).toMatchObject({ status: 200, body: "pong" });
});

test("cells share an interpreter, and one that fails does not stop the next", async () => {
  const { status, body } = await jupyter([
    'a = "hello"',
    "a",
    "import sys\nsys.stderr.write('noted\\n');",
    "1/0",
    "sys.stderr.write('before\\n')\nopen('missing')",
    "",
    "print(a)",
    "from IPython.display import HTML, JSON\ndisplay(HTML('<b>x</b>'), JSON({'k': [1]}))",
  ]);
  expect(status).toBe(200);
  expect(body).toMatchObject({
    status: "Success",
    message: "",
    driver: { status: "Finished", return_code: 0 },
    files: {},
  });
  expect(body.cells).toMatchObject([
    { stdout: "", stderr: "", display: [], error: [] },
    { stdout: "", display: [{ "text/plain": "'hello'" }], error: [] },
    { stdout: "", stderr: "noted\n", display: [], error: [] },
    {
      stderr: "",
      display: [],
      error: [{ ename: "ZeroDivisionError", evalue: "division by zero", traceback: expect.any(Array) }],
    },
    { stderr: "before\n", error: [{ ename: "FileNotFoundError" }] },
    { stdout: "", stderr: "", display: [], error: [] },
    { stdout: "hello\n", display: [], error: [] },
    { display: [{ "text/html": "<b>x</b>" }, { "application/json": { k: [1] } }] },
  ]);
});

test("files come in and go out of cells, which leave no session behind", async () => {
  const { body } = await jupyter(["text = open('in/a').read()", "open('out','w').write(text + '!')"], {
    files: { "in/a": base64("hi") },
    fetch_files: ["out", "missing"],
  });
  expect(body.files).toEqual({ out: base64("hi!") });
  expect((await client.get("/api/sessions")).body.sessions).toEqual([]);
});

test("a cell that takes too long is stopped alone, and all of them by their time together", async () => {
  const { body: one } = await jupyter(["while True: pass", "print(2)"], { cell_timeout: 0.2 });
  expect(one).toMatchObject({ status: "Success", cells: [{ error: [{ ename: "Timeout" }] }, { stdout: "2\n" }] });
  const { body: all } = await jupyter(["print(1)", "while True: pass", "print(3)"], { total_timeout: 0.5 });
  expect(all).toMatchObject({ status: "Failed", driver: { status: "TimeLimitExceeded" } });
  expect(all.cells).toHaveLength(2);
  expect((await client.get("/api/sessions")).body.sessions).toEqual([]);
});

test("a client that goes away interrupts its program, and its cells", async () => {
  for (const [path, body] of [
    ["/run_code", { code: "while True: pass", language: "python" }],
    ["/run_jupyter", { cells: ["while True: pass"] }],
  ] as const) {
    await leaveWhileItRuns(server, client, path, body);
    await until(async () => (await client.get("/api/sessions")).body.count === 0);
  }
});

describe.skipIf(TEST_WHEELS === "")("figures", () => {
  let own: TestServer;
  beforeAll(async () => {
    own = await startTestServer({ PYODIDE_PACKAGES: "matplotlib", PACKAGE_DIR: TEST_WHEELS });
  });
  afterAll(async () => await own.stop(0));

  test("a figure is among what a cell displays", async () => {
    const cells = ["import matplotlib.pyplot as plt", "plt.plot([1, 2], [3, 4])\nplt.show()"];
    const { body } = await own.post("/run_jupyter", { cells });
    expect(body.cells[1].display[0]).toMatchObject({ "image/png": expect.stringMatching(/^iVBOR/) });
  });
});
