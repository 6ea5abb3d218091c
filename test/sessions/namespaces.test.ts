/** Several sets of global variables in one session. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasRedis } from "../support/redis.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { twoServers } from "../support/two-servers.ts";

if (!hasRedis) console.warn("There is no redis-server on this machine: its tests are skipped.");

const SETTINGS = { POOL_SIZE: "1", SESSION_DURABILITY: "commit" };

describe("on disk", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer(SETTINGS);
  });
  afterAll(async () => {
    await server.stop(0);
  });
  describeNamespaces(() => [server, server]);
});

describe.skipIf(!hasRedis)("in Redis, on two servers", () => {
  describeNamespaces(twoServers(SETTINGS));
});

function describeNamespaces(servers: () => readonly [TestServer, TestServer]): void {
  let turn = 0;
  /** One server after the other. */
  const server = () => servers()[turn++ % 2] as TestServer;

  const create = async (body: object = {}): Promise<string> =>
    (await server().post("/api/sessions", body)).body.session.id;
  const run = async (session: string, namespace: string | undefined, code: string, more: object = {}) =>
    (await server().post("/api/execute", { code, session, ...(namespace && { namespace }), ...more })).body;
  const list = async (session: string) => (await server().get(`/api/sessions/${session}/namespaces`)).body.namespaces;
  const add = (session: string, body: object) => server().post(`/api/sessions/${session}/namespaces`, body);
  const reset = (session: string, name: string) =>
    server().post(`/api/sessions/${session}/namespaces/${name}/reset`, {});
  /** Takes the sandboxes from whatever they hold. */
  const evict = () => Promise.all(servers().map((one) => one.post("/api/execute", { code: "1", files: "none" })));

  test("have variables, In, Out, _ and numbers of their own, and files and modules together", async () => {
    const id = await create();
    expect(await run(id, undefined, "x = 'default'; x")).toMatchObject({ executionCount: 1 });
    expect(await run(id, "a", "x = 'a'; x")).toMatchObject({ executionCount: 1 });
    expect(await run(id, "b", "'x' in globals()")).toMatchObject({ executionCount: 1, result: false });
    await run(id, "b", "import json; json.shared = 7; open('f', 'w').write('from b'); x = 'b'");
    await evict();
    const look = "import json\n[x, _, In[1], sorted(Out), json.shared, open('f').read(), __name__]";
    expect(await run(id, undefined, look)).toMatchObject({
      executionCount: 2,
      result: ["default", "default", "x = 'default'; x", [1], 7, "from b", "__main__"],
    });
    expect(await run(id, "a", look)).toMatchObject({
      executionCount: 2,
      result: ["a", "a", "x = 'a'; x", [1], 7, "from b", "__main__"],
    });
    expect(await run(id, "b", look)).toMatchObject({
      executionCount: 3,
      result: ["b", false, "'x' in globals()", [1], 7, "from b", "__main__"],
    });
    expect(await run(id, "__main__", "x")).toMatchObject({ executionCount: 3, result: "default" });
    expect(await list(id)).toMatchObject([
      { name: "__main__", executions: 3 },
      { name: "a", executions: 2 },
      { name: "b", executions: 3 },
    ]);
    expect((await server().get(`/api/sessions/${id}`)).body.session).toMatchObject({ executions: 8 });
  });

  test("have the names that the environment gives, context and tracebacks", async () => {
    const id = await create();
    const failed = await run(id, "plots.2d", "def f():\n  raise ValueError(given)\nf()", { context: { given: "why" } });
    expect(failed.errorInfo).toMatchObject({ type: "ValueError", message: "why", line: 2 });
    expect(failed.errorInfo.traceback).toContain('File "<exec plots.2d 1>", line 3, in <module>');
    expect(failed.errorInfo.traceback).toContain("raise ValueError(given)");
    expect(await run(id, "plots.2d", "import inspect; [inspect.getsource(f), given]")).toMatchObject({
      result: ["def f():\n  raise ValueError(given)\n", "why"],
    });
    expect(await run(id, undefined, "[n for n in globals() if not n.startswith('_')]")).toMatchObject({ result: [] });
  });

  test("pickle classes that they have, and come to themselves after errors and timeouts", async () => {
    const id = await create();
    await run(id, "a", "import pickle\nclass Point:\n  def __init__(self): self.x = 1\ndata = pickle.dumps(Point())");
    await run(id, "a", "1/0");
    await run(id, "a", "while True: pass", { timeout: 100 });
    expect(await run(id, undefined, "x = 1; 'Point' in globals()")).toMatchObject({ result: false });
    await evict();
    expect(await run(id, "a", "pickle.loads(data).x")).toMatchObject({ result: 1, executionCount: 4 });
    expect(await run(id, "a", "raise SystemExit(1)")).toMatchObject({ success: false });
    expect(await run(id, undefined, "import sys; [x, sys.modules['__main__'].x]")).toMatchObject({ result: [1, 1] });
  });

  test("run tasks of each other, and await at top level", async () => {
    const id = await create();
    await run(id, "a", "import asyncio\nx = 'of a'\nasync def f(): return x\ntask = asyncio.create_task(f())");
    expect(await run(id, "b", "import asyncio\nx = 'of b'; await asyncio.sleep(0); x")).toMatchObject({
      result: "of b",
    });
    expect(await run(id, "a", "await task")).toMatchObject({ result: "of a" });
  });

  test("go along with forks, and back with checkpoints", async () => {
    const id = await create();
    await run(id, "a", "x = 1");
    await server().post(`/api/sessions/${id}/checkpoints`, { name: "one" });
    await run(id, "a", "x = 2");
    await run(id, "late", "x = 3");
    const fork = (await server().post(`/api/sessions/${id}/fork`, {})).body.session.id;
    expect(await run(fork, "a", "x")).toMatchObject({ result: 2, executionCount: 3 });
    expect(await run(fork, "late", "x")).toMatchObject({ result: 3, executionCount: 2 });
    await server().delete(`/api/sessions/${id}/namespaces/a`);
    await server().post(`/api/sessions/${id}/checkpoints/one/restore`, {});
    expect(await run(id, "a", "x")).toMatchObject({ result: 1 });
    expect(await run(id, "late", "'x' in globals()")).toMatchObject({ result: false, executionCount: 1 });
    await server().post("/api/reset", { session: id });
    expect(await list(id)).toMatchObject([{ name: "__main__", executions: 0 }]);
    expect(await run(id, "a", "'x' in globals()")).toMatchObject({ result: false, executionCount: 1 });
  });

  test("are reset and deleted: variables go, with what they hold, and not those of others", async () => {
    const id = await create();
    const finalised = "class C:\n  def __del__(self): open('gone', 'a').write('.')\nkept = C(); x = 1";
    await run(id, "a", finalised);
    await run(id, "b", "x = 'b'; import os");
    await run(id, undefined, "x = 'default'");
    expect((await reset(id, "a")).status).toBe(200);
    await evict();
    expect(await run(id, "b", "[x, open('gone').read()]")).toMatchObject({ result: ["b", "."] });
    expect(await run(id, "a", "'x' in globals()")).toMatchObject({ result: false, executionCount: 1 });
    expect((await server().delete(`/api/sessions/${id}/namespaces/a`)).status).toBe(200);
    expect((await list(id)).map(({ name }: { name: string }) => name)).toEqual(["__main__", "b"]);
    expect(await run(id, undefined, "x")).toMatchObject({ result: "default" });
    expect((await reset(id, "__main__")).status).toBe(200);
    expect(await run(id, undefined, "['x' in globals(), __name__]")).toMatchObject({
      result: [false, "__main__"],
      executionCount: 1,
    });
    expect(await run(id, undefined, "In[1]")).toMatchObject({ executionCount: 2 });
    expect(await run(id, "b", "x")).toMatchObject({ result: "b" });
  });

  test("have a folder of their own where they were made with one", async () => {
    const id = await create({ cwd: "main" });
    expect(await add(id, { name: "a", cwd: "a" })).toMatchObject({
      status: 201,
      body: { namespace: { name: "a", cwd: "/home/pyodide/a", executions: 0 } },
    });
    expect(await add(id, {})).toMatchObject({ status: 201, body: { namespace: { name: "namespace-2" } } });
    const where = "import os\nos.getcwd()";
    expect(await run(id, "a", where)).toMatchObject({ result: "/home/pyodide/a" });
    expect(await run(id, "namespace-2", where)).toMatchObject({ result: "/home/pyodide/main" });
    await run(id, "a", "os.makedirs('deep'); os.chdir('deep'); open('f', 'w').write('f')");
    await run(id, "namespace-2", "os.chdir('/tmp')");
    await evict();
    expect(await run(id, "a", where)).toMatchObject({ result: "/home/pyodide/a/deep" });
    expect(await run(id, undefined, where)).toMatchObject({ result: "/tmp" });
    await run(id, undefined, "import shutil; shutil.rmtree('/home/pyodide/a')");
    expect(await run(id, "a", "open('g', 'w').write('g')\nos.getcwd()")).toMatchObject({
      result: "/home/pyodide/a/deep",
    });
    await run(id, "a", "os.chdir('/'); shutil = __import__('shutil'); shutil.rmtree('/tmp/x', True)");
    await reset(id, "a");
    expect(await run(id, "a", where)).toMatchObject({ result: "/home/pyodide/a" });
    expect((await server().get(`/api/sessions/${id}/files/a/deep/g`)).body).toBe("g");
  });

  test("go on where the session cannot be stored", async () => {
    const id = await create();
    const only = servers()[0];
    const on = async (namespace: string, code: string) =>
      (await only.post("/api/execute", { code, session: id, namespace })).body;
    const first = await on("a", "import ctypes; f = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7); x = 1");
    expect(first.session.pinned).toBeDefined();
    expect(await on("b", "y = 2")).toMatchObject({ executionCount: 1, session: { pinned: first.session.pinned } });
    expect(await on("a", "In[2]; x")).toMatchObject({ executionCount: 2, result: 1 });
    expect(await on("b", "y")).toMatchObject({ executionCount: 2, result: 2 });
    expect((await only.post(`/api/sessions/${id}/namespaces/a/reset`, {})).status).toBe(200);
    expect(await on("a", "'x' in globals()")).toMatchObject({ executionCount: 1, result: false });
  });

  test("that are wrong are refused, and nothing runs", async () => {
    const id = await create();
    const alone = await server().post("/api/execute", { code: "1", namespace: "a" });
    expect(alone).toMatchObject({ status: 400, body: { code: "namespace_without_session" } });
    for (const name of ["", "a b", "../a", ".a", "x".repeat(65), "a>"]) {
      expect(await server().post("/api/execute", { code: "1", session: id, namespace: name })).toMatchObject({
        status: 400,
        body: { code: "invalid_namespace_name" },
      });
      expect(await add(id, { name })).toMatchObject({ status: 400, body: { code: "invalid_namespace_name" } });
    }
    expect(await add(id, { cwd: "/etc" })).toMatchObject({ status: 400, body: { code: "invalid_path" } });
    expect(await add(id, { name: "__main__" })).toMatchObject({ status: 409, body: { code: "namespace_exists" } });
    expect((await add(id, { name: "a" })).status).toBe(201);
    expect(await add(id, { name: "a" })).toMatchObject({ status: 409, body: { code: "namespace_exists" } });
    for (let n = 1; n < 32; n++) expect((await add(id, {})).status).toBe(201);
    expect(await add(id, {})).toMatchObject({ status: 409, body: { code: "namespace_limit" } });
    expect(await run(id, "one.more", "1")).toMatchObject({ code: "namespace_limit" });
    expect(await reset(id, "none")).toMatchObject({ status: 404, body: { code: "not_found" } });
    expect((await server().delete(`/api/sessions/${id}/namespaces/none`)).status).toBe(404);
    expect((await server().delete(`/api/sessions/${id}/namespaces/__main__`)).status).toBe(400);
    expect((await server().get("/api/sessions/none/namespaces")).status).toBe(404);
    expect((await server().get(`/api/sessions/${id}`)).body.session).toMatchObject({ executions: 0 });
  });

  test("what code does to the runner's view of them ends with them", async () => {
    const id = await create();
    await run(id, undefined, "x = 'default'");
    await run(id, "a", "import sys, types; del sys.modules['__main__']");
    expect(await run(id, undefined, "x")).toMatchObject({ result: "default" });
    await run(id, "a", "import sys, types; sys.modules['__main__'] = types.ModuleType('other'); x = 'a'");
    expect(await run(id, undefined, "x")).toMatchObject({ result: "default" });
    expect(await run(id, "a", "x")).toMatchObject({ result: "a" });
    await run(id, "a", "globals().clear()");
    expect(await run(id, "a", "len('abc')")).toMatchObject({ result: 3 });
  });
}
