/** Environment variables of executions and sessions, and the folder that a session begins in. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;

beforeAll(async () => {
  server = await startTestServer({ POOL_SIZE: "1", SESSION_DURABILITY: "commit" });
});

afterAll(async () => {
  await server.stop(0);
});

async function create(body: object = {}): Promise<string> {
  const reply = await server.post("/api/sessions", body);
  expect(reply.body).toMatchObject({ success: true });
  return reply.body.session.id;
}

const run = async (code: string, more: object = {}) => (await server.post("/api/execute", { code, ...more })).body;
/** Takes the sandbox from the session it holds, so that the next execution has to load it. */
const evict = () => run("1", { files: "none" });

describe("env of an execution", () => {
  test("is in os.environ, os.getenv and the C library's, and gone for the next", async () => {
    const code = "import os, ctypes\n[os.environ['TOKEN'], os.getenv('LEER'), os.path.expanduser('~')]";
    const env = { TOKEN: "a=b\nü€😀", LEER: "", HOME: "/tmp" };
    expect(await run(code, { env })).toMatchObject({ result: ["a=b\nü€😀", "", "/tmp"] });
    expect(await run(code)).toMatchObject({ errorInfo: { type: "KeyError" } });
    const { body } = await server.post("/api/execute-stream", { code: "import os; print(os.environ['TOKEN'])", env });
    expect(body).toContain("a=b\\nü€😀");
  });

  test("comes with code that is one expression, and is there at the program's end", async () => {
    expect(await run("__import__('os').environ['A']", { env: { A: "1" } })).toMatchObject({ result: "1" });
    const code = "import atexit, os\natexit.register(lambda: print(os.environ['A']))\nNone";
    expect(await run(code, { env: { A: "at the end" } })).toMatchObject({ stdout: "at the end\n" });
  });

  test("is restored in a session, also after an error and a timeout; what code has changed stays", async () => {
    const session = await create();
    const seen = "import os\n[os.environ.get(n) for n in ('A', 'B', 'C')]";
    await run("import os; os.environ['A'] = 'mine'", { session });
    const env = { A: "1", B: "2" };
    expect(await run(seen, { session, env })).toMatchObject({ result: ["1", "2", null] });
    expect(await run(seen, { session })).toMatchObject({ result: ["mine", null, null] });
    await run("1/0", { session, env });
    await run("while True: pass", { session, env, timeout: 100 });
    await evict();
    expect(await run(seen, { session })).toMatchObject({ result: ["mine", null, null] });
    await run("os.environ['A'] = 'kept'; del os.environ['B']; os.environ['C'] = 'new'", { session, env });
    await evict();
    expect(await run(seen, { session })).toMatchObject({ result: ["kept", null, "new"] });
  });

  test("does not stop an execution of a session that has damaged os.environ", async () => {
    const session = await create();
    await run("import os; real = os.environ; os.environ = None", { session });
    expect(await run("real['A']", { session, env: { A: "1" } })).toMatchObject({ result: "1" });
  });

  test.each([
    [{ "": "1" }, 'Names of env must have a character, and neither "=" nor NUL.'],
    [{ "A=B": "1" }, 'Names of env must have a character, and neither "=" nor NUL.'],
    [{ "A\0": "1" }, 'Names of env must have a character, and neither "=" nor NUL.'],
    [{ A: "1\0" }, "Values of env must have no NUL."],
    [{ A: "\ud800" }, "Env must be text that UTF-8 has."],
    [{ A: 1 }, "Values of env must be strings."],
    [["A=1"], "Env must be an object of strings."],
    ["A=1", "Env must be an object of strings."],
    [{ A: "x".repeat(32 * 1024) }, "Env too long. Maximum: 32768 characters."],
    [Object.fromEntries(Array.from({ length: 257 }, (_, n) => [`A${n}`, ""])), "Env may have at most 256 variables."],
  ])("that is %j is refused", async (env, error) => {
    const refusal = { success: false, error, code: "invalid_request" };
    expect(await run("1", { env })).toMatchObject(refusal);
    expect((await server.post("/api/sessions", { env })).body).toMatchObject(refusal);
  });
});

describe("a session that begins", () => {
  test("has its env and its folder, which its code may change for good", async () => {
    const session = await create({ env: { STAGE: "test", A: "1" }, cwd: "project/src" });
    const seen = "import os\n[os.getcwd(), os.environ.get('STAGE'), os.environ.get('A')]";
    const folder = "/home/pyodide/project/src";
    expect(await run(seen, { session })).toMatchObject({ result: [folder, "test", "1"] });
    expect(await run(seen, { session, env: { A: "2" } })).toMatchObject({ result: [folder, "test", "2"] });
    await evict();
    expect(await run(seen, { session })).toMatchObject({ result: [folder, "test", "1"] });
    await run("os.chdir('..'); os.environ['STAGE'] = 'changed'; open('f', 'w').write('f')", { session });
    await evict();
    expect(await run(seen, { session })).toMatchObject({ result: ["/home/pyodide/project", "changed", "1"] });
    expect((await server.get(`/api/sessions/${session}/files/project/f`)).body).toBe("f");
  });

  test("has them again after a reset, and in a fork", async () => {
    const session = await create({ env: { A: "1" }, cwd: "/tmp/work" });
    const early = (await server.post(`/api/sessions/${session}/fork`, {})).body.session.id;
    await run("import os; os.chdir('/'); del os.environ['A']", { session });
    const late = (await server.post(`/api/sessions/${session}/fork`, {})).body.session.id;
    await server.post("/api/reset", { session });
    const seen = "import os\n[os.getcwd(), os.environ.get('A')]";
    expect(await run(seen, { session })).toMatchObject({ result: ["/tmp/work", "1"] });
    expect(await run(seen, { session: early })).toMatchObject({ result: ["/tmp/work", "1"] });
    expect(await run(seen, { session: late })).toMatchObject({ result: ["/", null] });
  });

  test("has them in a first execution that was killed and in the one after it", async () => {
    const session = await create({ env: { A: "1" }, cwd: "/tmp/work" });
    const stubborn = "while True:\n  try:\n    while True: pass\n  except BaseException: pass";
    expect(await run(stubborn, { session, timeout: 100 })).toMatchObject({ session: { restored: true } });
    expect(await run("import os\n[os.getcwd(), os.environ['A']]", { session })).toMatchObject({
      result: ["/tmp/work", "1"],
    });
  });

  test("says that its folder cannot be made, until it can", async () => {
    const session = await create({ cwd: "taken/folder" });
    const sent = { method: "PUT", body: "a file" };
    expect((await server.request(`/api/sessions/${session}/files/taken`, sent)).status).toBeLessThan(300);
    for (let round = 0; round < 2; round++) {
      const failed = await run("print('must not run')", { session });
      expect(failed).toMatchObject({ success: false, errorInfo: { type: "NotADirectoryError" }, stdout: "" });
      await evict();
    }
    expect((await server.delete(`/api/sessions/${session}/files/taken`)).status).toBe(200);
    expect(await run("import os; os.getcwd()", { session })).toMatchObject({ result: "/home/pyodide/taken/folder" });
  });

  test.each([
    ["/mnt/data/a", "/home/pyodide/a"],
    ["/mnt/data", "/home/pyodide"],
    ["/home/user/a", "/home/pyodide/a"],
    ["a/../b/", "/home/pyodide/b"],
    ["/plots/matplotlib", "/plots/matplotlib"],
    ["", "/home/pyodide"],
  ])("in %j is in %s", async (cwd, folder) => {
    const session = await create({ cwd });
    expect(await run("import os; os.getcwd()", { session })).toMatchObject({ result: folder });
  });

  test.each([
    "/",
    "/home",
    "/etc",
    "/lib/x",
    "../..",
    "/mnt/datasets",
    "/home/users",
    "a\0b",
    "x".repeat(5000),
    "/home/pyodidex",
  ])("in %j is refused", async (cwd) => {
    expect(await server.post("/api/sessions", { cwd })).toMatchObject({
      status: 400,
      body: { code: "invalid_path" },
    });
  });
});
