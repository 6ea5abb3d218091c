import { afterAll, beforeAll, expect, test } from "vitest";
import { createClient, type Reply, type TestClient } from "../support/client.ts";
import { leaveWhileItRuns } from "../support/leave-while-it-runs.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const ALICE = "a-key-of-piston-tests";
const BOB = "b-key-of-piston-tests";
let server: TestServer;
let client: TestClient;

beforeAll(async () => {
  server = await startTestServer({ API_KEYS: `alice:${ALICE},bob:${BOB}` });
  client = createClient(server.url, { "x-api-key": ALICE });
});
afterAll(async () => await server.stop(0));

const execute = async (body: Record<string, unknown>): Promise<Reply> =>
  await client.post("/api/v2/execute", { language: "python", version: "3.x", ...body });
const run = async (content: string, more: Record<string, unknown> = {}) => {
  const { status, body } = await execute({ files: [{ content }], ...more });
  expect(status).toBe(200);
  return body.run;
};

test("a program runs, and its reply is Piston's", async () => {
  const { body: runtimes } = await client.get("/api/v2/runtimes");
  const { version } = runtimes[0];
  expect(runtimes[0]).toEqual({
    language: "python",
    version: expect.stringMatching(/^3\.\d+/),
    aliases: expect.any(Array),
  });
  expect(await execute({ files: [{ name: "main.py", content: "print('hi')" }] })).toMatchObject({
    status: 200,
    body: {
      language: "python",
      version,
      run: { stdout: "hi\n", stderr: "", output: "hi\n", code: 0, signal: null, message: null, status: null },
    },
  });
  expect((await client.get("/api/v2/packages")).body[0]).toEqual({
    language: "python",
    language_version: version,
    installed: true,
  });
});

test.each(["py", "py3", "python3", "python", "python-stdlib"])("the language %s is Python", async (language) => {
  const { body } = await execute({ language, version: "*", files: [{ content: "print(1)" }] });
  expect(body).toMatchObject({ run: { stdout: "1\n" } });
});

test.each([{ toString: 1 }, [{ toString: 1 }], null, 3, "__proto__"])(
  "%j is no language, nor a version",
  async (given) => {
    for (const body of [
      { language: given, version: "*" },
      { language: "python", version: given },
    ]) {
      expect((await client.post("/api/v2/packages", body)).status).toBe(404);
      expect((await execute({ ...body, files: [{ content: "" }] })).status).toBe(400);
    }
  },
);

test("versions are selected as semver does", async () => {
  const { version } = (await client.get("/api/v2/runtimes")).body[0];
  const [major, minor] = version.split(".");
  for (const selector of ["*", "3", "3.x", `${major}.${minor}`, `>=3.10`, version])
    expect(await execute({ version: selector, files: [{ content: "" }] })).toMatchObject({ status: 200 });
  for (const selector of ["2.x", "3.10.0", "nonsense"])
    expect(await execute({ version: selector, files: [{ content: "" }] })).toMatchObject({
      status: 400,
      body: { message: `python-${selector} runtime is unknown` },
    });
});

test("the first file is the program, the others are beside it, in any encoding", async () => {
  const files = [
    {
      name: "app/main.py",
      content:
        "import sys\nfrom app import helper\nprint(helper.x, open('b.bin','rb').read(), open('h').read(), __file__, __name__, sys.argv)",
    },
    { name: "app/helper.py", content: "x = 5" },
    { name: "b.bin", content: Buffer.from([0, 255]).toString("base64"), encoding: "base64" },
    { name: "h", content: Buffer.from("é").toString("hex"), encoding: "hex" },
  ];
  const { body } = await execute({ files, args: ["a", "b c"] });
  expect(body.run).toMatchObject({
    stdout: "5 b'\\x00\\xff' é /home/pyodide/app/main.py __main__ ['app/main.py', 'a', 'b c']\n",
    stderr: "",
  });
});

test("a file without a name has one, and of two of one name the later one counts", async () => {
  expect(
    await run("import sys, os; print(sys.argv, sorted(os.listdir('.')))", {
      files: [{ content: "import os; print(sorted(os.listdir('.')))" }, { content: "x" }],
    }),
  ).toMatchObject({
    stdout: "['file0.code', 'file1.code']\n",
  });
  const twice = [
    { name: "m.py", content: "print(1)" },
    { name: "m.py", content: "print(2)" },
  ];
  expect((await execute({ files: twice })).body.run.stdout).toBe("2\n");
});

test("clients of the public server find it at their path", async () => {
  const body = { language: "py", version: "*", files: [{ content: "print(1)" }] };
  expect((await client.post("/api/v2/piston/execute", body)).body.run.stdout).toBe("1\n");
  expect((await client.get("/api/v2/piston/runtimes")).body).toEqual((await client.get("/api/v2/runtimes")).body);
});

test("standard input ends with a line", async () => {
  expect(await run("print([input(), input()])", { stdin: "a\nb" })).toMatchObject({ stdout: "['a', 'b']\n" });
  expect(await run("print([input()])")).toMatchObject({ stdout: "['']\n" });
});

test("both streams are in `output` in the order in which they were printed", async () => {
  const code = "import sys\nfor i in range(50):\n print('o', i)\n print('e', i, file=sys.stderr)";
  const { stdout, stderr, output } = await run(code);
  const numbers = Array.from({ length: 50 }, (_, i) => i);
  expect(stdout).toBe(numbers.map((i) => `o ${i}\n`).join(""));
  expect(stderr).toBe(numbers.map((i) => `e ${i}\n`).join(""));
  expect(output).toBe(numbers.map((i) => `o ${i}\ne ${i}\n`).join(""));
});

test.each([
  ["import sys; sys.exit(3)", 3, ""],
  ["exit(-1)", 255, ""],
  ["import sys; sys.exit('bye')", 1, "bye\n"],
  ["import sys; sys.exit(2**40 + 5)", 5, ""],
  ["import sys; sys.exit(2**63)", 255, ""],
  ["import sys; sys.exit(-10**100)", 255, ""],
  ["import os; os._exit(7)", 7, ""],
  ["raise SystemExit", 0, ""],
  ["import sys; sys.exit(None)", 0, ""],
])("%s ends with its status", async (code, status, stderr) => {
  expect(await run(code)).toMatchObject({
    code: status,
    signal: null,
    stdout: "",
    stderr,
    status: status === 0 ? null : "RE",
    message: status === 0 ? null : `Exited with error status ${status}`,
  });
});

test("an exception is a traceback in stderr that names the program's file, and status 1", async () => {
  const { body } = await execute({ files: [{ name: "main.py", content: "def f():\n    1/0\nf()" }] });
  expect(body.run.code).toBe(1);
  expect(body.run.stderr).toBe(
    'Traceback (most recent call last):\n  File "/home/pyodide/main.py", line 3, in <module>\n    f()\n    ~^^\n' +
      '  File "/home/pyodide/main.py", line 2, in f\n    1/0\n    ~^~\nZeroDivisionError: division by zero\n',
  );
});

test("a program that takes too long is killed, with what it printed", async () => {
  expect(await run("print('begun')\nwhile True: pass", { run_timeout: 300 })).toMatchObject({
    stdout: "begun\n",
    code: null,
    signal: "SIGKILL",
    status: "TO",
    message: "Time limit exceeded (wall clock)",
  });
  expect((await run("print(1)")).stdout).toBe("1\n");
});

test("nothing of a program is left for another, or in the caller's workspace", async () => {
  await client.put("/api/files/mine.txt", "mine");
  expect((await run("import os; open('left.txt','w').write('x'); print(os.listdir('.'))")).stdout).toBe(
    "['file0.code']\n".replace("]", ", 'left.txt']"),
  );
  expect((await run("import os; print(os.listdir('.'))")).stdout).toBe("['file0.code']\n");
  const { body } = await client.get("/api/files");
  expect(body.files.map(({ path }: { path: string }) => path)).toEqual(["/home/pyodide/mine.txt"]);
});

test.each([
  [{ language: undefined }, "language is required as a string"],
  [{ language: 5 }, "language is required as a string"],
  [{ version: undefined }, "version is required as a string"],
  [{ files: undefined }, "files is required as an array"],
  [{ files: {} }, "files is required as an array"],
  [{ files: [{ name: "a" }] }, "files[0].content is required as a string"],
  [{ files: [null] }, "files[0].content is required as a string"],
  [{ files: [{ content: "", name: {} }] }, "files[0].name must be a string"],
  [{ files: [] }, "files must include at least one utf8 encoded file"],
  [{ files: [{ content: "", encoding: "hex" }] }, "files must include at least one utf8 encoded file"],
  [{ language: "javascript", version: "18" }, "javascript-18 runtime is unknown"],
  [{ language: "bash", version: "*" }, "bash-* runtime is unknown"],
  [{ run_timeout: "3" }, "If specified, run_timeout must be a number"],
  [{ run_timeout: 1e9 }, "run_timeout cannot exceed the configured limit of 300000"],
  [{ compile_timeout: -1 }, "compile_timeout must be non-negative"],
  [{ run_memory_limit: "x" }, "If specified, run_memory_limit must be a number"],
  [{ args: "a" }, "args must be an array of strings"],
  [{ version: ">=3.0.0 ".repeat(33) }, `python-${">=3.0.0 ".repeat(33).slice(0, 100)} runtime is unknown`],
  [{ files: [{ content: "", name: "a/../".repeat(900) }] }, `File path "${"a/../".repeat(20)}" is too long`],
  [{ args: [1] }, "args must be an array of strings"],
  [{ stdin: 5 }, "stdin must be a string"],
  [{ files: [{ content: "", name: "../x" }] }, 'File path "../x" tries to escape parent directory: ../x'],
  [
    { files: [{ content: "" }, { content: "", name: "a/../../../etc/x" }] },
    'File path "a/../../../etc/x" tries to escape parent directory: ../../etc/x',
  ],
])("%j is refused in Piston's words", async (wrong, message) => {
  expect(await execute({ files: [{ content: "print(1)" }], ...wrong })).toMatchObject({
    status: 400,
    body: { message },
  });
});

test.each([
  ["name with NUL", { content: "", name: "a\0b" }],
  ["a folder's name", { content: "", name: "a/" }],
  ["a name without a name", { content: "", name: "." }],
])("a %s is a 400", async (_, file) => {
  const { status, body } = await execute({ files: [{ content: "print(1)", name: "m.py" }, file] });
  expect({ status, keys: Object.keys(body) }).toEqual({ status: 400, keys: ["message"] });
});

test("bodies that are no JSON, or no object, are refused", async () => {
  const headers = { "content-type": "text/plain" };
  expect(await client.request("/api/v2/execute", { method: "POST", headers, body: "{}" })).toMatchObject({
    status: 415,
    body: { message: "requests must be of type application/json" },
  });
  expect(await client.post("/api/v2/execute", "{")).toMatchObject({
    status: 400,
    body: { message: expect.any(String) },
  });
  expect(await client.post("/api/v2/execute", "[1]")).toMatchObject({
    status: 400,
    body: { message: "language is required as a string" },
  });
  const huge = await execute({ files: [{ content: "#".repeat(11 * 1024 * 1024) }] });
  expect(huge).toMatchObject({ status: 400, body: { message: /Code too long/ } });
});

test("packages are what there is", async () => {
  const { version } = (await client.get("/api/v2/runtimes")).body[0];
  const wanted = { language: "python", version: "3.x" };
  expect(await client.post("/api/v2/packages", wanted)).toMatchObject({
    status: 200,
    body: { language: "python", version },
  });
  expect(await client.post("/api/v2/packages", { language: "bash", version: "5.x" })).toMatchObject({
    status: 404,
    body: { message: "Requested package bash-5.x does not exist" },
  });
  const removal = { method: "DELETE", headers: { "content-type": "application/json" }, body: JSON.stringify(wanted) };
  expect(await client.request("/api/v2/packages", removal)).toMatchObject({
    status: 400,
    body: { message: /cannot be uninstalled/ },
  });
});

test("a key is taken without a scheme too, as Piston's public server took its tokens", async () => {
  const ask = async (headers: Record<string, string>) =>
    (await createClient(server.url, headers).get("/api/v2/runtimes")).status;
  expect(await ask({ authorization: ALICE })).toBe(200);
  expect(await ask({ authorization: `Bearer ${ALICE}` })).toBe(200);
  expect(await ask({ authorization: "not-a-key-0123456789" })).toBe(401);
  expect(await ask({})).toBe(401);
});

test("a client that goes away interrupts its program", async () => {
  const body = { language: "python", version: "*", files: [{ content: "while True: pass" }] };
  await leaveWhileItRuns(server, client, "/api/v2/execute", body);
});
