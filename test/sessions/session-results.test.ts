import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

/** What a session has of a notebook: `_`, `Out` and `In`. */

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ PYODIDE_PACKAGES: "none" });
});
afterAll(async () => await server?.stop(0));

async function openSession(): Promise<(code: string) => Promise<unknown>> {
  const { id } = (await server.post("/api/sessions", {})).body.session;
  return async (code) => {
    const { body } = await server.post("/api/execute", { code, session: id });
    return body.success ? body.result : body.error;
  };
}

test("results are there as _, __, ___ and in Out, code in In", async () => {
  const run = await openSession();
  await run("'first'");
  await run("x = 5");
  await run("'third'");
  expect(await run("[_, __, Out, _1, _3]")).toEqual(["third", "first", { 1: "first", 3: "third" }, "first", "third"]);
  expect(await run("In[2]")).toBe("x = 5");
  expect(await run("_ + '!'")).toBe("x = 5!");
  expect(await run("[_, __, ___[0], sorted(Out)]")).toEqual(["x = 5!", "x = 5", "third", [1, 3, 4, 5, 6]]);
  expect(await run("Out[2]")).toMatch(/Out\[2\]: there was no result/);
  expect(await run("In[99]")).toMatch(/In\[99\]: there was no such execution/);
});

test("a _ of the program's own stays", async () => {
  const run = await openSession();
  await run("1");
  await run("for _ in range(3): pass");
  await run("7");
  expect(await run("_, Out[3]")).toEqual([2, 7]);
});

test("names of the program's own go first", async () => {
  const run = await openSession();
  await run("Out = In = 5");
  await run("1");
  expect(await run("Out, In")).toEqual([5, 5]);
});

test("an old or large result is not kept in Out", async () => {
  const run = await openSession();
  await run("big = bytes(10**6)\nbig");
  expect(await run("len(_), len(Out)")).toEqual([10 ** 6, 0]);
  expect(await run("Out[1]")).toMatch(/larger than 64 KiB/);
  await run("'old'");
  // As a hundred executions would.
  await run("for n in range(100, 200): get_ipython().keep_result(n, n)");
  expect(await run("[len(Out), 4 in Out, '_4' in globals(), Out[199], _]")).toEqual([100, false, false, 199, 199]);
  expect(await run("class B:\n  def __sizeof__(self): raise ValueError\n  def __str__(self): return 'b'\nB()")).toBe(
    "b",
  );
  expect(await run("str(_)")).toBe("b");
});

test("without a session they are not there", async () => {
  const { body } = await server.post("/api/execute", { code: "[name in globals() for name in ('_', 'Out', 'In')]" });
  expect(body.result).toEqual([false, false, false]);
});

test("what is made outside the session's folders is gone with its execution, and a folder that it was in", async () => {
  const run = await openSession();
  expect(
    await run(
      "import os\nos.mkdir('/work')\nos.chdir('/work')\nopen('a', 'w').write('x')\nf = open('/b', 'w+')\nf.write('y')\nos.rename('a', 'c')\nos.listdir('/work')",
    ),
  ).toEqual(["c"]);
  expect(await run("[os.path.exists(p) for p in ('/work', '/work/c', '/work/a', '/b')] + [os.getcwd()]")).toEqual([
    false,
    false,
    false,
    false,
    "/home/pyodide",
  ]);
  expect(await run("f.seek(0)\nf.read()")).toBe("y");
  expect(await run("open('/mnt/data/kept', 'w').write('k')")).toBe(1);
  expect(await run("open('kept').read(), os.listdir('/mnt')")).toEqual(["k", ["data"]]);
});
