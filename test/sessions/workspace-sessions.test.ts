import { rm } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { createClient, type TestClient } from "../support/client.ts";
import { hasRedis } from "../support/redis.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { twoServers } from "../support/two-servers.ts";
import { until } from "../support/until.ts";

const PRINCIPALS = 60;
const keyOf = (principal: number) => `key-of-principal-${principal}`;
const SETTINGS = {
  API_KEYS: Array.from({ length: PRINCIPALS }, (_, n) => `p${n}:${keyOf(n)}:execute+files`).join(","),
  POOL_SIZE: "3",
  PRINCIPAL_MAX_CONCURRENCY: "3",
  WORKSPACE_MAX_MB: "2",
  SESSION_MAX_MB: "4",
};
/** Errno of a stale file handle, as the interpreter's C library counts. */
const ESTALE = 72;
const STALE_ONLY = `
def outcome(action):
    try:
        return action()
    except OSError as error:
        return error.errno
`;

/** One principal's way to the servers, each request to the next of them. */
class User {
  readonly #clients: readonly TestClient[];
  #turn = 0;

  constructor(clients: readonly TestClient[]) {
    this.#clients = clients;
  }

  get api(): TestClient {
    return this.#clients[this.#turn++ % this.#clients.length] as TestClient;
  }

  async create(body: object = { files: "workspace" }): Promise<string> {
    const reply = await this.api.post("/api/sessions", body);
    expect(reply.status).toBe(201);
    return reply.body.session.id;
  }

  async run(session: string | undefined, code: string, more: object = {}) {
    const reply = await this.api.post("/api/execute", { code, session, ...more });
    return { httpStatus: reply.status, ...reply.body };
  }

  async result(session: string | undefined, code: string) {
    const reply = await this.run(session, code);
    expect(reply).toMatchObject({ success: true });
    return reply.result;
  }

  /** Runs code that waits for a line, which it is given once `act` is done. */
  async runWhile(session: string, code: string, act: () => Promise<void>) {
    const waiting = await this.run(session, code, { interactive: true });
    expect(waiting.status).toBe("tool_call_required");
    await act();
    const results = [{ id: waiting.inputRequests[0].id, result: "" }];
    return (await this.api.post(`/api/executions/${waiting.continuation}`, { results })).body;
  }

  async put(name: string, content: string): Promise<void> {
    expect((await this.api.put(`/api/files/${name}`, content)).status).toBe(200);
  }

  async read(name: string): Promise<string> {
    return String((await this.api.get(`/api/files/${name}`)).body);
  }

  async names(path = "/api/files"): Promise<string[]> {
    return (await this.api.get(path)).body.files.map(({ path }: { path: string }) =>
      path.replace("/home/pyodide/", ""),
    );
  }

  /** Has other executions take all sandboxes, so that no session is resident. */
  async evictAll(): Promise<void> {
    for (const client of this.#clients) {
      const run = () => client.post("/api/execute", { code: "import time; time.sleep(0.05)" });
      await Promise.all([run(), run(), run(), run()]);
    }
  }
}

/** What holds wherever sessions and workspaces are stored. */
function describeWorkspaceSessions(user: () => User): void {
  test("is shown as one, and others have files of their own", async () => {
    const alice = user();
    const id = await alice.create();
    expect((await alice.api.get(`/api/sessions/${id}`)).body.session).toMatchObject({
      files: "workspace",
      fileBytes: 0,
    });
    for (const body of [{}, { files: "own" }]) {
      const own = await alice.create(body);
      expect((await alice.api.get(`/api/sessions/${own}`)).body.session.files).toBe("own");
      await alice.result(own, "open('mine', 'w').write('x')");
      expect(await alice.names()).toEqual([]);
      expect(await alice.names(`/api/sessions/${own}/files`)).toEqual(["mine"]);
    }
    const refused = await alice.api.post("/api/sessions", { files: "none" });
    expect(refused).toMatchObject({ status: 400, body: { error: 'Files must be "own" or "workspace".' } });
  });

  test("sees what others have uploaded, changed and deleted, and what it writes is theirs when its reply is sent", async () => {
    const alice = user();
    const id = await alice.create();
    const other = await alice.create();
    await alice.put("data.csv", "a\n1\n");
    expect(await alice.result(id, "x = 1; it = iter(range(9)); next(it); open('data.csv').read()")).toBe("a\n1\n");
    await alice.put("data.csv", "a\n1\n2\n");
    await alice.put("more/new.txt", "new");
    expect(await alice.result(id, "[x, next(it), open('data.csv').read(), open('more/new.txt').read()]")).toEqual([
      1,
      1,
      "a\n1\n2\n",
      "new",
    ]);
    expect((await alice.api.delete("/api/files/more/new.txt")).status).toBe(200);
    expect(await alice.result(id, "import os; os.path.exists('more/new.txt')")).toBe(false);
    await alice.result(
      id,
      "open('out.txt', 'w').write('of the session'); os.makedirs('made/deep'); open('/plots/p.svg', 'w').write('p')",
    );
    expect(await alice.read("out.txt")).toBe("of the session");
    expect(await alice.result(undefined, "open('out.txt').read()")).toBe("of the session");
    expect(await alice.result(other, "import os; [open('out.txt').read(), os.listdir('made')]")).toEqual([
      "of the session",
      ["deep"],
    ]);
    await alice.result(undefined, "open('out.txt', 'a').write(', and of another')");
    expect(await alice.result(id, "open('out.txt').read()")).toBe("of the session, and of another");
    await alice.result(id, "os.remove('out.txt'); os.rename('data.csv', 'renamed.csv')");
    expect((await alice.names()).sort()).toEqual(["/plots/p.svg", "renamed.csv"]);
    expect(await alice.result(other, "[next(iter(range(3))), os.path.exists('out.txt')]")).toEqual([0, false]);
  });

  test("is as a notebook is: cells of two of them in turns, each with variables of its own", async () => {
    const alice = user();
    const ids = [await alice.create(), await alice.create()];
    for (let round = 1; round <= 4; round++) {
      for (const [index, id] of ids.entries()) {
        const code = `n = globals().get("n", 0) + 1
with open("log", "a") as log: log.write(f"{n}-${index} ")
[n, open("log").read().split()]`;
        const [n, lines] = await alice.result(id, code);
        expect(n).toBe(round);
        expect(lines.length).toBe((round - 1) * 2 + index + 1);
      }
      if (round === 2) await alice.evictAll();
    }
  });

  test("goes on with files that it has open and nothing else has changed, also where others change other files", async () => {
    const alice = user();
    const id = await alice.create();
    await alice.put("in.txt", "one\ntwo\nthree\n");
    await alice.result(
      id,
      "i = open('in.txt'); o = open('out.txt', 'w+'); d = __import__('os').scandir('.'); next(d).name and i.readline()",
    );
    await alice.put("other", "x");
    expect(await alice.result(id, "o.write('1'); i.readline()")).toBe("two\n");
    await alice.evictAll();
    await alice.put("other", "y");
    const reply = await alice.run(id, "o.write('2'); o.flush(); o.seek(0); [i.readline(), o.read(), len(list(d))]");
    expect(reply.result).toEqual(["three\n", "12", 1]);
    expect(reply.session).toEqual({ id });
    expect(await alice.read("out.txt")).toBe("12");
    expect((await alice.names()).sort()).toEqual(["in.txt", "other", "out.txt"]);
  });

  test.each([
    ["changed", (alice: User) => alice.put("f.txt", "of another: something longer"), "of another: something longer"],
    ["deleted", async (alice: User) => void (await alice.api.delete("/api/files/f.txt")), null],
    [
      "deleted with its folder",
      (alice: User) => alice.result(undefined, "import shutil; shutil.rmtree('dir')").then(() => {}),
      null,
    ],
    [
      "replaced by a folder",
      (alice: User) => alice.result(undefined, "import os; os.remove('f.txt'); os.mkdir('f.txt')").then(() => {}),
      "folder",
    ],
  ])(
    "what it has open and another has %s cannot be used, says so, and leaves what others wrote",
    async (how, change, left) => {
      const alice = user();
      const id = await alice.create();
      const name = how.includes("its folder") ? "dir/f.txt" : "f.txt";
      await alice.result(
        undefined,
        `import os; os.makedirs(os.path.dirname('./${name}'), exist_ok=True); open('${name}', 'w').write('abc\\ndef\\n')`,
      );
      await alice.result(
        id,
        `${STALE_ONLY}\nimport os\nr = open('${name}'); r.readline(); w = open('${name}', 'r+'); u = open('${name}', 'rb', buffering=0)`,
      );
      await change(alice);
      const code = `[outcome(lambda: u.read()), outcome(lambda: os.fstat(u.fileno())), outcome(lambda: os.ftruncate(w.fileno(), 0)),
outcome(lambda: os.fsync(w.fileno())), outcome(lambda: os.lseek(u.fileno(), 0, 2)), outcome(lambda: (w.write('overwritten'), w.flush()))]`;
      const stale = `/home/pyodide/${name}`;
      const reply = await alice.run(id, code);
      expect(reply).toMatchObject({
        success: true,
        result: Array(6).fill(ESTALE),
        session: { id, staleFiles: [stale] },
      });
      await alice.evictAll();
      const again = await alice.run(id, "outcome(lambda: u.read(1))");
      expect(again).toMatchObject({ result: ESTALE, session: { staleFiles: [stale] } });
      if (left === "folder") expect(await alice.result(id, "os.path.isdir('f.txt')")).toBe(true);
      else if (left === null) expect(await alice.result(id, `os.path.exists('${name}')`)).toBe(false);
      else expect(await alice.read("f.txt")).toBe(left);
      // Closed, it is no more: the file of the name is the one that is there.
      await alice.run(id, "u.close(); r.close(); outcome(w.close)");
      const after = await alice.run(id, "outcome(lambda: open('f.txt').read())");
      expect(after.session).toEqual({ id });
      if (typeof left === "string" && left !== "folder") expect(after.result).toBe(left);
    },
  );

  test("equal contents are the same file, and one that is stale stays so", async () => {
    const alice = user();
    const id = await alice.create();
    await alice.put("f", "abc");
    await alice.result(id, `${STALE_ONLY}\nf = open('f', 'rb', buffering=0); f.read(1)`);
    await alice.put("f", "abc");
    expect(await alice.result(id, "f.read(1).decode()")).toBe("b");
    await alice.put("f", "xyz");
    expect(await alice.result(id, "outcome(lambda: f.read(1))")).toBe(ESTALE);
    await alice.put("f", "abc");
    expect(await alice.result(id, "outcome(lambda: f.read(1))")).toBe(ESTALE);
  });

  test("what only appends goes on at the end of what is there, as long as it is there", async () => {
    const alice = user();
    const ids = [await alice.create(), await alice.create()];
    for (const id of ids)
      await alice.result(id, `${STALE_ONLY}\nlog = open('log', 'a'); log.write('begun ') and log.flush()`);
    for (const n of [1, 2, 3])
      for (const [index, id] of ids.entries()) await alice.result(id, `log.write('${index}${n} ') and log.flush()`);
    expect(await alice.read("log")).toBe("begun begun 01 11 02 12 03 13 ");
    await alice.api.delete("/api/files/log");
    expect(await alice.result(ids[0], "outcome(lambda: (log.write('x'), log.flush()))")).toBe(ESTALE);
    expect(await alice.names()).toEqual([]);
  });

  test("memory that is mapped to a file that others have changed is written to nothing", async () => {
    const alice = user();
    const id = await alice.create();
    await alice.put("m", "0123456789");
    await alice.result(id, `${STALE_ONLY}\nimport mmap\nf = open('m', 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close()`);
    await alice.put("unrelated", "x");
    await alice.result(id, "m[0:1] = b'A'; m.flush()");
    expect(await alice.read("m")).toBe("A123456789");
    await alice.put("m", "of another");
    const reply = await alice.run(id, "m[1:2] = b'B'; [bytes(m[:3]).decode(), outcome(m.flush)]");
    expect(reply).toMatchObject({ result: ["AB2", ESTALE], session: { staleFiles: ["/home/pyodide/m"] } });
    expect(await alice.read("m")).toBe("of another");
    await alice.evictAll();
    expect(await alice.result(id, "bytes(m[:3]).decode()")).toBe("AB2");
    expect(await alice.result(id, "m.close(); open('m').read()")).toBe("of another");
    expect(await alice.read("m")).toBe("of another");
  });

  test("a database that others have changed fails, and neither is damaged", async () => {
    const alice = user();
    const ids = [await alice.create(), await alice.create()];
    const open =
      "import sqlite3\ndb = sqlite3.connect('d.sqlite'); db.execute('create table if not exists t (v)'); db.commit()";
    for (const id of ids) await alice.result(id, open);
    await alice.result(
      ids[1],
      "db.close()\ndb = sqlite3.connect('d.sqlite'); db.execute('insert into t values (1)'); db.commit()",
    );
    const failed = await alice.run(ids[0], "db.execute('insert into t values (2)'); db.commit()");
    expect(failed).toMatchObject({ success: false, errorInfo: { type: "OperationalError" } });
    expect(failed.session.staleFiles).toEqual(["/home/pyodide/d.sqlite"]);
    const again = "db.close()\ndb = sqlite3.connect('d.sqlite')\ndb.execute('insert into t values (3)'); db.commit()\n";
    const rows = "[db.execute('pragma integrity_check').fetchall(), db.execute('select v from t').fetchall()]";
    expect(await alice.result(ids[0], again + rows)).toEqual([[["ok"]], [[1], [3]]]);
  });

  test("folders, links and the working folder go along, and give way to what others made", async () => {
    const alice = user();
    const id = await alice.create();
    await alice.result(
      id,
      "import os; os.makedirs('a/b'); os.symlink('a', 'link'); os.symlink('/tmp', 'a/b/t'); os.chdir('a/b'); d = os.scandir('..')",
    );
    await alice.put("x", "1");
    expect(
      await alice.result(
        id,
        "[os.getcwd(), os.path.islink('../../link'), os.path.exists('../../x'), os.path.islink('t')]",
      ),
    ).toEqual(["/home/pyodide/a/b", true, true, true]);
    await alice.result(undefined, "import os, shutil; shutil.rmtree('a'); open('link', 'w').write('a file now')");
    expect(
      await alice.result(id, "[os.getcwd(), os.path.islink('link'), open('link').read(), os.path.exists('a')]"),
    ).toEqual(["/home/pyodide", false, "a file now", false]);
    expect((await alice.names()).sort()).toEqual(["link", "x"]);
  });

  test("a deleted file that it has open is its own", async () => {
    const alice = user();
    const id = await alice.create();
    await alice.result(id, "import os; f = open('f', 'w+'); f.write('kept'); f.flush(); os.remove('f')");
    expect(await alice.names()).toEqual([]);
    await alice.put("f", "of another");
    expect(await alice.result(id, "f.seek(0); [f.read(), open('f').read()]")).toEqual(["kept", "of another"]);
    expect(await alice.read("f")).toBe("of another");
  });

  test("what does not fit the workspace is not kept, and the session is as it was before", async () => {
    const alice = user();
    const id = await alice.create();
    await alice.result(id, "x = 1; open('f', 'w').write('before')");
    const code = "x = 2; open('f', 'w').write('after'); open('g', 'wb').write(bytes(900_000)); input()";
    const reply = await alice.runWhile(id, code, async () => await alice.put("large", "x".repeat(1_500_000)));
    expect(reply).toMatchObject({ success: false, code: "workspace_full", session: { id, restored: true } });
    expect(reply.session.reason).toContain("The workspace is full");
    expect(reply.session.reason).not.toContain("stays");
    expect((await alice.names()).sort()).toEqual(["f", "large"]);
    expect(await alice.result(id, "[x, open('f').read()]")).toEqual([1, "before"]);
  });

  test("an execution that is killed leaves both as they were", async () => {
    const alice = user();
    const id = await alice.create();
    await alice.result(id, "x = 'before'; open('f', 'w').write('before')");
    const reply = await alice.run(id, "x = 'after'; open('f', 'w').write('after'); sum(range(10**12))", {
      timeout: 200,
    });
    expect(reply.session).toMatchObject({ id, restored: true });
    expect(await alice.result(id, "[x, open('f').read()]")).toEqual(["before", "before"]);
  });

  test("where its state is too large, what it wrote to the workspace stays, and the reply says so", async () => {
    const alice = user();
    const id = await alice.create();
    await alice.result(id, "x = 1; log = open('log', 'a'); r = open('r', 'w+'); r.write('1')");
    const reply = await alice.run(
      id,
      "import os; x = os.urandom(8_000_000); open('f', 'w').write('kept'); log.write('2'); r.write('2')",
    );
    expect(reply).toMatchObject({ success: false, session: { id, restored: true } });
    expect(reply.session.reason).toMatch(/4\.0 MiB is the most\. What it wrote to the workspace stays\.$/);
    expect(await alice.read("f")).toBe("kept");
    // Its own writes are of an execution that it knows nothing of.
    const next = await alice.run(id, "log.write('3') and log.flush(); [x, open('f').read(), open('log').read()]");
    expect(next).toMatchObject({ result: [1, "kept", "23"], session: { staleFiles: ["/home/pyodide/r"] } });
  });

  test("forks, checkpoints and resets share the workspace, which does not go back", async () => {
    const alice = user();
    const id = await alice.create();
    await alice.result(id, "x = 1; f = open('f', 'w'); f.write('1') and f.flush()");
    const api = () => alice.api;
    expect((await api().post(`/api/sessions/${id}/checkpoints`, { name: "one" })).status).toBe(201);
    const fork = (await api().post(`/api/sessions/${id}/fork`, {})).body.session;
    expect(fork.files).toBe("workspace");
    expect(await alice.result(fork.id, "f.write('2'); f.flush(); [x, open('f').read()]")).toEqual([1, "12"]);
    expect(await alice.read("f")).toBe("12");
    expect((await alice.run(id, "x = 2; f.write('3'); f.flush()")).errorInfo).toMatchObject({ type: "OSError" });
    expect((await api().post(`/api/sessions/${id}/checkpoints/one/restore`, {})).status).toBe(200);
    expect(await alice.run(id, "[x, open('f').read()]")).toMatchObject({
      result: [1, "12"],
      session: { staleFiles: ["/home/pyodide/f"] },
    });
    expect((await api().post("/api/reset", { session: id })).status).toBe(200);
    expect(await alice.run(id, "['x' in globals(), open('f').read()]")).toMatchObject({
      result: [false, "12"],
      session: { id },
    });
    expect((await api().post(`/api/sessions/${id}/checkpoints`, { name: "two" })).status).toBe(201);
    const unused = await alice.create();
    expect((await api().post(`/api/sessions/${unused}/checkpoints`, { name: "empty" })).status).toBe(201);
    expect(await alice.result(unused, "open('f').read()")).toBe("12");
    expect((await api().post(`/api/sessions/${unused}/checkpoints/empty/restore`, {})).status).toBe(200);
    expect(await alice.result(unused, "open('f').read()")).toBe("12");
    for (const gone of [id, fork.id, unused]) expect((await api().delete(`/api/sessions/${gone}`)).status).toBe(200);
    expect(await alice.read("f")).toBe("12");
  });

  test("its files are the workspace's on its own routes too", async () => {
    const alice = user();
    const id = await alice.create();
    await alice.put("f", "1");
    const base = `/api/sessions/${id}/files`;
    expect((await alice.api.get(`${base}/f`)).body).toBe("1");
    expect((await alice.api.put(`${base}/dir/g`, "2")).status).toBe(200);
    expect(await alice.read("dir/g")).toBe("2");
    await alice.result(id, "h = open('f')");
    // Others may delete it as well.
    expect((await alice.api.delete(`${base}/f`)).status).toBe(200);
    expect((await alice.api.get(`${base}/f`)).status).toBe(404);
    expect(await alice.names()).toEqual(["dir/g"]);
    expect(await alice.names(base)).toEqual(["dir/g"]);
    expect((await alice.api.put(`${base}/dir`, "x")).body.code).toBe("not_a_file");
    expect((await alice.api.put(`${base}/large`, "x".repeat(3 * 1024 * 1024))).body.code).toBe("workspace_full");
    expect((await alice.run(id, "1")).session.staleFiles).toEqual(["/home/pyodide/f"]);
  });

  test("one that cannot leave its sandbox goes on until others change the workspace, and is then refused", async () => {
    const alice = user();
    const id = await alice.create();
    const pin = "import ctypes; called = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7); x = 1; open('f', 'w').write('1')";
    // With two servers it is held by the one that ran it.
    const on = alice.api;
    const run = async (code: string) => (await on.post("/api/execute", { code, session: id })).body;
    expect((await run(pin)).session.pinned).toMatch(/ffi_closure_alloc_js/);
    expect((await run("open('g', 'w').write('2'); called()")).result).toBe(7);
    expect((await alice.names()).sort()).toEqual(["f", "g"]);
    await alice.put("f", "of another");
    for (let attempt = 0; attempt < 3; attempt++) {
      expect(await run("called()")).toMatchObject({
        code: "session_pinned",
        error: expect.stringContaining("workspace has changed"),
      });
    }
    await on.post("/api/execute", { code: "open('f', 'w').write('also')" });
    expect((await run("called()")).code).toBe("session_pinned");
    expect((await on.post("/api/reset", { session: id })).status).toBe(200);
    expect((await run("open('f').read()")).result).toBe("also");
  });

  test("two executions at once are merged path by path, and each next one sees both", async () => {
    const alice = user();
    const ids = [await alice.create(), await alice.create()] as const;
    const code = (name: string) => `open('own-${name}', 'w').write('x'); open('both', 'w').write('${name}')`;
    await alice.runWhile(ids[0], `${code("first")}; input()`, async () => {
      await alice.result(ids[1], code("second"));
    });
    for (const id of ids) {
      // The one that ends last has the path that both wrote.
      const seen = await alice.result(id, "import os; [sorted(os.listdir('.')), open('both').read()]");
      expect(seen).toEqual([["both", "own-first", "own-second"], "first"]);
    }
  });

  test("an execution whose client never answers leaves nothing", async () => {
    const alice = user();
    const id = await alice.create();
    await alice.result(id, "x = 1");
    const code = "x = 2; open('f', 'w').write('of no execution'); input()";
    const waiting = await alice.run(id, code, { interactive: true, toolTimeout: 1000 });
    expect(waiting.status).toBe("tool_call_required");
    await until(async () => (await alice.api.get(`/api/sessions/${id}`)).body.session.state !== "running");
    expect(await alice.result(id, "import os; [x, os.listdir('.')]")).toEqual([1, []]);
  });

  test("another principal has another workspace", async () => {
    const [alice, bob] = [user(), user()];
    const id = await alice.create();
    await alice.result(id, "open('f', 'w').write('of the first')");
    const other = await bob.create();
    expect(await bob.result(other, "import os; os.listdir('.')")).toEqual([]);
    expect((await bob.api.get(`/api/sessions/${id}/files/f`)).status).toBe(404);
    expect((await bob.api.put(`/api/sessions/${id}/files/f`, "x")).status).toBe(404);
    expect((await bob.api.delete(`/api/sessions/${id}/files/f`)).status).toBe(404);
  });
}

/** Each test has a principal of its own. */
function users(servers: () => readonly TestServer[]): () => User {
  let next = 0;
  return () => {
    const headers = { "x-api-key": keyOf(next++) };
    return new User(servers().map(({ url }) => createClient(url, headers)));
  };
}

describe("a session that works on its principal's workspace, on disk", () => {
  const dataDir = temporaryFolder("workspace-sessions");
  let server: TestServer;

  beforeAll(async () => {
    server = await startTestServer({ ...SETTINGS, DATA_DIR: dataDir });
  });

  afterAll(async () => {
    await server.stop(0);
    await rm(dataDir, { recursive: true, force: true });
  });

  const user = users(() => [server]);
  describeWorkspaceSessions(user);

  test("is there after a restart, with the files as they are then", async () => {
    const headers = { "x-api-key": keyOf(PRINCIPALS - 1) };
    const connect = () => new User([createClient(server.url, headers)]);
    const before = connect();
    const id = await before.create();
    await before.put("f", "abc");
    await before.result(id, "x = 1; f = open('f', 'rb', buffering=0); f.read(1); g = open('g', 'w+'); g.write('1')");
    await server.stop(1000);
    server = await startTestServer({ ...SETTINGS, DATA_DIR: dataDir });
    const reply = await connect().run(id, "[x, f.read(1).decode(), g.seek(0), g.read()]");
    expect(reply).toMatchObject({ result: [1, "b", 0, "1"], session: { id } });
  });
});

describe.skipIf(!hasRedis)("a session that works on its principal's workspace, on two servers with Redis", () => {
  describeWorkspaceSessions(users(twoServers(SETTINGS)));
});

describe("a session that works on its principal's workspace, with replies before its state is stored", () => {
  let server: TestServer;

  beforeAll(async () => {
    server = await startTestServer({ ...SETTINGS, SESSION_DURABILITY: "after-reply" });
  });

  afterAll(async () => {
    await server.stop(0);
  });

  const user = users(() => [server]);

  test("has what it wrote in the workspace when the reply is sent", async () => {
    const alice = user();
    const id = await alice.create();
    for (let n = 1; n <= 5; n++) {
      await alice.result(id, `f = open('f-${n}', 'w'); f.write('${n}'); f.flush()`);
      expect(await alice.read(`f-${n}`)).toBe(String(n));
    }
  });

  test("is told with its next reply that its state was not stored, and that the workspace has what it wrote", async () => {
    const alice = user();
    const id = await alice.create();
    await alice.result(id, "x = 1");
    expect((await alice.run(id, "import os; x = os.urandom(8_000_000); open('f', 'w').write('kept')")).success).toBe(
      true,
    );
    const reply = await alice.run(id, "[x, open('f').read()]");
    expect(reply).toMatchObject({ result: [1, "kept"], session: { id, restored: true } });
    expect(reply.session.reason).toMatch(/is the most\. What it wrote to the workspace stays\.$/);
  });
});
