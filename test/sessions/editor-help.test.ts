/** Completion and inspection in sessions, which stay as they are; what is found is `test/python/editor-help.test.ts`. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasRedis } from "../support/redis.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { twoServers } from "../support/two-servers.ts";
import { until } from "../support/until.ts";

if (!hasRedis) console.warn("There is no redis-server on this machine: its tests are skipped.");

const KEYS = "alice:alice-key-of-sixteen:execute+files,bob:bob-key-of-sixteen:execute+files";
const alice = { authorization: "Bearer alice-key-of-sixteen" };
const bob = { authorization: "Bearer bob-key-of-sixteen" };
const SETTINGS = { API_KEYS: KEYS, POOL_SIZE: "2", SESSION_DURABILITY: "commit" };

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer(SETTINGS);
});
afterAll(async () => {
  await server.stop(0);
});

async function create(body: object = {}): Promise<string> {
  const reply = await server.post("/api/sessions", body, alice);
  expect(reply.status).toBe(201);
  return reply.body.session.id;
}
const run = async (session: string, code: string, more: object = {}) =>
  (await server.post("/api/execute", { code, session, ...more }, alice)).body;
const complete = (session: string, body: object, headers = alice) =>
  server.post(`/api/sessions/${session}/complete`, body, headers);
const inspect = (session: string, body: object) => server.post(`/api/sessions/${session}/inspect`, body, alice);
const textsOf = async (session: string, body: object) =>
  (await complete(session, body)).body.matches.map(({ text }: { text: string }) => text);
/** Takes both sandboxes from whatever they hold. */
const evict = () =>
  Promise.all([1, 2].map(() => server.post("/api/execute", { code: "import time; time.sleep(0.05)" }, alice)));

/** Has the runner of a session answer with this instead; the value of `answer` is sent. */
const tampered = (statements: string, answer: string) =>
  `import sandbox_runner.editor_help as e\ndef answer(question):\n  ${statements}\n  return ${answer}\ne.answer = answer\nx = 1`;

describe("completion and inspection", () => {
  test("ask no metaclass", async () => {
    const id = await create();
    const asking = "class M(type):\n  def __getattribute__(cls, name): return 'asked'\n";
    await run(id, `${asking}class N(metaclass=M):\n  'what N is'\nn = N()`);
    for (const [code, type] of [
      ["n", "N"],
      ["N", "M"],
    ]) {
      for (const detail of [0, 1]) {
        const text: string = (await inspect(id, { code, detail })).body.data["text/plain"];
        expect(text).toMatch(new RegExp(`^Type: +${type}$`, "m"));
        expect(text).not.toContain("asked");
      }
    }
  });

  test("are of what the session holds, awake or not, and count as no execution", async () => {
    const id = await create();
    await run(id, "def greet(name: str = 'you'):\n  'Says hello.'\n  return 1\nx = 1");
    const before = (await server.get(`/api/sessions/${id}`, alice)).body.session;
    for (let round = 0; round < 2; round++) {
      expect(await complete(id, { code: "greet(na", cursor: 3 })).toMatchObject({
        status: 200,
        body: { success: true, matches: [{ text: "greet", type: "function" }], start: 0, end: 3, truncated: false },
      });
      expect(await textsOf(id, { code: "greet(nam" })).toEqual(["name="]);
      const { body } = await inspect(id, { code: "greet" });
      expect(body).toMatchObject({ found: true });
      expect(body.data["text/plain"]).toMatch(/^Signature:\s+greet\(name: str = 'you'\)[\s\S]*Says hello\.$/);
      expect((await inspect(id, { code: "greet", detail: 1 })).body.data["text/plain"]).toContain("  return 1\n");
      expect((await inspect(id, { code: "nothing" })).body).toMatchObject({ found: false, data: {} });
      await evict();
    }
    const after = (await server.get(`/api/sessions/${id}`, alice)).body.session;
    expect({ ...after, state: before.state }).toEqual(before);
    expect(await run(id, "[In[1][:9], x]")).toMatchObject({ executionCount: 2, result: ["def greet", 1] });
    expect(await textsOf(id, { code: "gree" })).toEqual(["greet"]);
  });

  test("work where nothing has run yet, in the folder and with the files that there are", async () => {
    const id = await create({ cwd: "work" });
    await server.put(`/api/sessions/${id}/files/work/data.csv`, "a,b", alice);
    expect(await textsOf(id, { code: "open('da" })).toEqual(["data.csv"]);
    expect(await textsOf(id, { code: "isinst" })).toEqual(["isinstance"]);
    expect(await run(id, "import os; os.getcwd()")).toMatchObject({ executionCount: 1, result: "/home/pyodide/work" });
  });

  test("are of one namespace, and make none", async () => {
    const id = await create();
    await run(id, "only_here = 1", { namespace: "a" });
    expect(await textsOf(id, { code: "only_h", namespace: "a" })).toEqual(["only_here"]);
    expect(await textsOf(id, { code: "only_h" })).toEqual([]);
    expect(await textsOf(id, { code: "only_h", namespace: "__main__" })).toEqual([]);
    expect(await complete(id, { code: "only_h", namespace: "b" })).toMatchObject({
      status: 404,
      body: { code: "not_found", error: "Namespace not found" },
    });
    expect((await server.get(`/api/sessions/${id}/namespaces`, alice)).body.count).toBe(2);
    expect(await run(id, "only_here", { namespace: "a" })).toMatchObject({ executionCount: 2, result: 1 });
  });

  test("leave nothing in the session, whatever its own code does while they are answered", async () => {
    const id = await create();
    const answer = "{'matches': [{'text': 'made up', 'type': 'x'}], 'start': 0, 'end': 1, 'isCut': False}";
    await run(id, tampered("global x; x = 2; open('made', 'w').write('made'); print('printed')", answer));
    for (let round = 0; round < 2; round++) {
      expect(await textsOf(id, { code: "x" })).toEqual(["made up"]);
      expect(await run(id, "import os; [x, os.path.exists('made')]")).toMatchObject({ result: [1, false], stdout: "" });
    }
    await textsOf(id, { code: "x" });
    const fork = (await server.post(`/api/sessions/${id}/fork`, {}, alice)).body.session.id;
    expect(await run(fork, "[x, os.path.exists('made')]")).toMatchObject({ result: [1, false] });
    expect((await server.get(`/api/sessions/${id}/files`, alice)).body.count).toBe(0);
  });

  test.each([
    ["raises", "1/0", "None"],
    ["answers with something else", "pass", "{'matches': 1}"],
    ["answers with a place outside of the code", "pass", "{'matches': [], 'start': 7, 'end': 9, 'isCut': False}"],
    ["answers with too much", "pass", "{'matches': [], 'start': 0, 'end': 1, 'isCut': 'x' * 5_000_000}"],
    ["does not answer", "while True: pass", "None"],
    ["ends the process", "import ctypes; ctypes.string_at(2**31 - 1)", "None"],
  ])("are none where its own code %s, and the session goes on", async (_, statements, answer) => {
    const id = await create();
    await run(id, tampered(statements, answer));
    const nothing = { success: true, matches: [], start: 1, end: 1 };
    expect(await complete(id, { code: "x" })).toMatchObject({ status: 200, body: nothing });
    expect(await run(id, "x")).toMatchObject({ executionCount: 2, result: 1 });
  });

  test("do not wait for long while something else runs", async () => {
    const id = await create();
    const running = run(id, "import time\nwhile True: time.sleep(0.01)", { timeout: 60_000 });
    await until(async () => (await server.get(`/api/sessions/${id}`, alice)).body.session.state === "running");
    const reply = await complete(id, { code: "x" });
    expect(reply).toMatchObject({ status: 503, body: { code: "session_occupied" } });
    expect(reply.headers.get("retry-after")).toBe("1");
    await server.post(`/api/sessions/${id}/interrupt`, {}, alice);
    await running;
    expect(await textsOf(id, { code: "isinst" })).toEqual(["isinstance"]);
  });

  test("are answered where the session cannot be stored, and it stays", async () => {
    const id = await create();
    const pinned = await run(id, "import ctypes; called = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7); x = 1");
    expect(pinned.session.pinned).toBeDefined();
    expect(await textsOf(id, { code: "calle" })).toEqual(["called"]);
    expect(await textsOf(id, { code: "calle" })).toEqual(["called"]);
    await evict();
    expect((await server.get(`/api/sessions/${id}`, alice)).body.session).toMatchObject({
      state: "pinned",
      executions: 0,
    });
    expect(await run(id, "[called(), x, In[2][:7]]")).toMatchObject({ executionCount: 2, result: [7, 1, "[called"] });
  });

  test("that are wrong are refused", async () => {
    const id = await create();
    const wrong = [{}, { code: 1 }, { code: "x", cursor: 2 }, { code: "x", cursor: -1 }, { code: "x", cursor: 0.5 }];
    const bodies = [...wrong, { code: "x".repeat(100_001) }, { code: "x", namespace: 1 }];
    for (const body of bodies) {
      expect(await complete(id, body)).toMatchObject({ status: 400, body: { code: "invalid_request" } });
      expect(await inspect(id, body)).toMatchObject({ status: 400, body: { code: "invalid_request" } });
    }
    expect(await inspect(id, { code: "x", detail: 2 })).toMatchObject({ status: 400 });
    for (const [session, headers] of [
      ["none", alice],
      [id, bob],
    ] as const) {
      expect(await complete(session, { code: "x" }, headers)).toMatchObject({
        status: 404,
        body: { code: "session_not_found" },
      });
    }
    expect(await complete(id, { code: "'😀'.upp", cursor: 7 })).toMatchObject({
      status: 200,
      body: { start: 4, end: 7 },
    });
  });
});

describe("whether code is complete", () => {
  test("is told without a session, and nothing runs", async () => {
    const ask = async (code: unknown) => (await server.post("/api/is-complete", { code }, alice)).body;
    expect(await ask("for i in x:")).toMatchObject({ success: true, status: "incomplete", indent: "    " });
    expect(await ask("while True: pass")).toMatchObject({ status: "complete" });
    expect(await ask("1 +")).toMatchObject({ status: "invalid" });
    expect(await ask("")).toMatchObject({ status: "complete" });
    expect(await ask(1)).toMatchObject({ success: false, code: "invalid_request" });
    expect(await ask("x".repeat(100_001))).toMatchObject({ success: false, code: "invalid_request" });
  });
});

describe.skipIf(!hasRedis)("on two servers", () => {
  const servers = twoServers(SETTINGS);

  test("a question is answered by either, and never by an older copy", async () => {
    const [a, b] = servers();
    const { id } = (await a.post("/api/sessions", {}, alice)).body.session;
    const texts = async (on: TestServer) =>
      (await on.post(`/api/sessions/${id}/complete`, { code: "value_" }, alice)).body.matches.map(
        ({ text }: { text: string }) => text,
      );
    await a.post("/api/execute", { code: "value_1 = 1", session: id }, alice);
    expect(await texts(a)).toEqual(["value_1"]);
    expect(await texts(b)).toEqual(["value_1"]);
    await b.post("/api/execute", { code: "value_2 = 1; del value_1", session: id }, alice);
    expect(await texts(a)).toEqual(["value_2"]);
    expect(await texts(b)).toEqual(["value_2"]);
    expect((await a.post("/api/execute", { code: "value_2", session: id }, alice)).body).toMatchObject({
      executionCount: 3,
    });
  });

  test("one that the other server's execution holds up is told so", async () => {
    const [a, b] = servers();
    const { id } = (await a.post("/api/sessions", {}, alice)).body.session;
    const code = "import time\nwhile True: time.sleep(0.01)";
    const running = a.post("/api/execute", { code, session: id, timeout: 60_000 }, alice);
    await until(async () => (await a.get(`/api/sessions/${id}`, alice)).body.session.state === "running");
    const reply = await b.post(`/api/sessions/${id}/complete`, { code: "x" }, alice);
    expect(reply).toMatchObject({ status: 503, body: { code: "session_occupied" } });
    await b.post(`/api/sessions/${id}/interrupt`, {}, alice);
    await running;
  });
});
