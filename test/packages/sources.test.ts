import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { py } from "../support/engine.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

/** Which code a traceback, a warning or `inspect` names and quotes. */
let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ POOL_SIZE: "2" });
});
afterAll(async () => {
  await server.stop(0);
});

async function newSession(): Promise<string> {
  return (await server.post("/api/sessions", {})).body.session.id;
}

async function execute(code: string, session?: string) {
  return (await server.post("/api/execute", { code, ...(session && { session }) })).body;
}

/** Runs the steps in a session of their own. @returns the last reply. */
async function steps(...codes: string[]) {
  const session = await newSession();
  for (const code of codes.slice(0, -1)) expect(await execute(code, session)).toMatchObject({ success: true });
  return await execute(codes.at(-1) as string, session);
}

describe("the sources of a session's executions", () => {
  test("an exception that was kept quotes the line that raised it", async () => {
    const { stderr } = await steps(
      "try:\n    1/0\nexcept Exception as e:\n    err = e",
      "import traceback\n# filler\ntraceback.print_exception(err)",
    );
    expect(stderr).toContain('File "<exec 1>", line 2, in <module>\n    1/0\n');
  });

  test("an exception that was kept and is raised again has both lines", async () => {
    const { errorInfo } = await steps("try: {}['k']\nexcept KeyError as e: err = e", "x = 1\n\nraise err");
    expect(errorInfo).toMatchObject({ line: 3, column: 1 });
    expect(errorInfo.traceback).toContain("    raise err\n");
    expect(errorInfo.traceback).toContain("try: {}['k']\n");
  });

  test("a cause, a context and a group quote theirs", async () => {
    const { stderr } = await steps(
      "def f():\n  return {}['one']",
      "def g():\n  try: f()\n  except KeyError as e: raise ValueError('two') from e",
      "try: g()\nexcept ValueError as e: raise ExceptionGroup('three', [e])",
    );
    expect(stderr).toMatch(/"<exec 1>", line 2, in f\n[ |]*return {}\['one'\]\n/);
    expect(stderr).toMatch(/"<exec 2>", line 3, in g\n[ |]*except KeyError as e: raise ValueError\('two'\) from e\n/);
    expect(stderr).toMatch(/"<exec 3>", line 2, in <module>\n[ |]*except ValueError as e: raise ExceptionGroup/);
  });

  test("a function of an earlier execution is quoted; the place is that in the code which was sent", async () => {
    const { errorInfo } = await steps("def first():\n    raise ValueError('from one')\n", "x = 1\n# here\nfirst()\n");
    expect(errorInfo.traceback).toContain("  File \"<exec 1>\", line 2, in first\n    raise ValueError('from one')\n");
    expect(errorInfo).toMatchObject({ line: 3, column: 1 });
  });

  test("a generator, a coroutine, a lambda and a method are quoted", async () => {
    const { stdout } = await steps(
      py`
        import asyncio, traceback
        def numbers():
          yield 1
          raise ValueError("generator")
        async def wait():
          await asyncio.sleep(0)
          raise ValueError("coroutine")
        class A:
          def method(self): raise ValueError("method")
        divide = lambda: 1 / 0  # lambda
        running = numbers(); next(running)`,
      py`
        # Another text with as many lines.
        def attempt(call):
          try: call()
          except Exception: print(traceback.format_exc())
        attempt(lambda: next(running)); attempt(A().method); attempt(divide)
        try: await wait()
        except ValueError: print(traceback.format_exc())`,
    );
    expect(stdout).toContain('line 4, in numbers\n    raise ValueError("generator")');
    expect(stdout).toContain('line 7, in wait\n    raise ValueError("coroutine")');
    expect(stdout).toContain('line 9, in method\n    def method(self): raise ValueError("method")');
    expect(stdout).toContain("line 10, in <lambda>\n    divide = lambda: 1 / 0  # lambda");
  });

  test("inspect.getsource", async () => {
    const { stdout } = await steps(
      "import inspect\ndef f(a):\n    return a + 1\n",
      "class Bar:\n    x = 1\n",
      "class Bar2:\n    def f(self): return 2\n",
      "print(inspect.getsource(f), inspect.getsource(Bar), inspect.getsource(Bar2), inspect.getsource(Bar2.f), sep='|')",
    );
    expect(stdout).toBe(
      "def f(a):\n    return a + 1\n|class Bar:\n    x = 1\n|class Bar2:\n    def f(self): return 2\n|    def f(self): return 2\n\n",
    );
  });

  test("inspect.getsource of a class that was defined twice in the same place", async () => {
    const { stdout } = await steps(
      "import inspect\nclass A:\n  def f(self): return 1",
      "First = A",
      "\nclass A:\n  def f(self): return 2",
      "print(inspect.getsource(First), inspect.getsource(A), sep='|')",
    );
    expect(stdout).toBe("class A:\n  def f(self): return 1|class A:\n  def f(self): return 2\n");
  });

  test("a warning names the execution, and comes in each", async () => {
    const session = await newSession();
    for (const name of ["<exec 1>", "<exec 2>"]) {
      const { stderr } = await execute("import warnings\nwarnings.warn('same')", session);
      expect(stderr).toBe(`${name}:2: UserWarning: same\n  warnings.warn('same')\n`);
    }
  });

  test("a warning in a function names the source of that function", async () => {
    const { stderr } = await steps("import warnings\ndef f():\n  warnings.warn('there')", "\n\n\nf()");
    expect(stderr).toBe("<exec 1>:3: UserWarning: there\n  warnings.warn('there')\n");
  });

  test("pdb lists the code that an exception comes from", async () => {
    const session = await newSession();
    await execute("def f(x):\n  y = x + 1\n  return y / 0\ntry: f(1)\nexcept Exception as e: err = e", session);
    const code = "import pdb\n# other lines\n# and more\npdb.post_mortem(err.__traceback__)";
    const { body } = await server.post("/api/execute", { code, session, stdin: "p y\nlist\nq\n" });
    expect(body.stdout).toContain("-> return y / 0");
    expect(body.stdout).toMatch(/2\s+y = x \+ 1/);
  });

  test("they are numbered as the session counts, also after a fork, a failure, a kill and a checkpoint", async () => {
    const session = await newSession();
    const where = "import sys; sys._getframe().f_code.co_filename";
    expect((await execute(where, session)).result).toBe("<exec 1>");
    await server.post(`/api/sessions/${session}/checkpoints`, { name: "one" });
    await execute("1 / 0", session);
    expect((await execute(where, session)).result).toBe("<exec 3>");
    const killed = await server.post("/api/execute", { code: "sum(range(10**12))", session, timeout: 200 });
    expect(killed.body.session).toMatchObject({ restored: true });
    expect((await execute(where, session)).result).toBe("<exec 4>");
    const fork = (await server.post(`/api/sessions/${session}/fork`, {})).body.session;
    expect((await execute(where, fork.id)).result).toBe(`<exec ${fork.executions + 1}>`);
    const { body } = await server.post(`/api/sessions/${session}/checkpoints/one/restore`, {});
    expect((await execute(where, session)).result).toBe(`<exec ${body.session.executions + 1}>`);
  });

  test("what is used stays for good, what is not goes", async () => {
    const session = await newSession();
    await execute("import inspect, linecache\ndef kept():\n  return 'kept'  # this line", session);
    await execute("try: kept.x\nexcept AttributeError as e: err = e  # that line", session);
    for (let round = 0; round < 130; round++) await execute(`x = ${round}`, session);
    const code = py`
      import traceback
      names = [name for name in linecache.cache if name.startswith("<exec")]
      len(names), names[0], names[1], "this line" in inspect.getsource(kept), "that line" in linecache.getline("<exec 2>", 2)`;
    const { result } = await execute(code, session);
    expect(result.slice(1)).toEqual(["<exec 1>", "<exec 2>", true, true]);
    expect(result[0]).toBeGreaterThan(50);
    expect(result[0]).toBeLessThan(120);
  });
});

describe("the source of a stateless execution", () => {
  test("is <exec>, and inspect.getsource finds what it defines", async () => {
    const code = py`
      import dataclasses, enum, functools, inspect
      def decorated(f):
        @functools.wraps(f)
        def call(*a): return f(*a)
        return call
      @decorated
      def f(a):
        return a
      class Bar:
        x = 1
      @dataclasses.dataclass(slots=True)
      class Data:
        y: int
        class Inner:
          z = 1
      class Color(enum.Enum):
        RED = 1
      def local():
        class Local: pass
        return Local
      fn = lambda: 5
      found = [inspect.getsource(o) for o in (f, Bar, Data, Data.Inner, Color, local(), fn)]
      found + [inspect.getsourcefile(Bar), inspect.getsourcelines(Bar)[1]]`;
    expect((await execute(code)).result).toEqual([
      "@decorated\ndef f(a):\n  return a\n",
      "class Bar:\n  x = 1\n",
      "@dataclasses.dataclass(slots=True)\nclass Data:\n  y: int\n  class Inner:\n    z = 1\n",
      "  class Inner:\n    z = 1\n",
      "class Color(enum.Enum):\n  RED = 1\n",
      "  class Local: pass\n",
      "fn = lambda: 5\n",
      "<exec>",
      9,
    ]);
  });

  test("a class of no source has none", async () => {
    const code = py`
      import inspect
      exec("class A:\n  x = 1")
      found = []
      for cls in (A, type("B", (), {}), int):
        try: found.append(inspect.getsource(cls))
        except (OSError, TypeError) as e: found.append(type(e).__name__)
      found`;
    expect((await execute(code)).result).toEqual(["OSError", "OSError", "TypeError"]);
  });

  test("a coroutine that nothing awaits is warned of where it was made", async () => {
    const warning = (line: number, text: string) =>
      `<exec>:${line}: RuntimeWarning: coroutine 'f' was never awaited\n  ${text}\nRuntimeWarning: Enable tracemalloc to get the object allocation traceback\n`;
    expect((await execute("async def f():\n    return 1\nf()\n")).stderr).toBe(warning(3, "f()"));
    const assigned = "async def f(): pass\nx = f()\nx = 1";
    expect((await execute(assigned)).stderr).toBe(warning(3, "x = 1"));
    const many = "async def f(): pass\n[f()]";
    expect((await execute(many)).stderr).toBe(warning(2, "[f()]"));
    const raised = "async def f(): pass\ndef g():\n  c = f()\n  1 / 0\ng()";
    expect((await execute(raised)).stderr).toContain(warning(4, "1 / 0"));
  });

  test("a warning that a call of ours causes names the line that made the call", async () => {
    const code = py`
      import warnings
      class Shown:
        def _repr_html_(self):
          warnings.warn("shown", stacklevel=2)
          return "<b>shown</b>"
        def __str__(self):
          warnings.warn("converted", stacklevel=2)
          return "text"
      display(Shown())
      (
        Shown()
      )`;
    const { stderr, result } = await execute(code);
    expect(result).toBe("text");
    expect(stderr).toBe("<exec>:9: UserWarning: shown\n  display(Shown())\n<exec>:10: UserWarning: converted\n  (\n");
  });

  test("logging names the user's line, too", async () => {
    const code =
      "import logging\nlogging.basicConfig(format='%(filename)s:%(lineno)d %(message)s')\nclass A:\n  def __str__(self):\n    logging.warning('here')\n    return 'a'\nA()";
    expect((await execute(code)).stderr).toBe("<exec>:5 here\n");
  });

  test("no module is there that was not imported", async () => {
    const names = "sorted(globals()), [n for n in dir() if not n.startswith('__')]";
    const own = ["__builtins__", "__doc__", "__loader__", "__name__", "__package__", "__spec__"];
    expect((await execute(names)).result).toEqual([own, []]);
    expect((await execute("sys.version")).stderr).toContain("Did you forget to import 'sys'?");
    for (const name of ["gc", "__main__", "sandbox_runner", "os", "ctypes", "js", "__file__"]) {
      expect(await execute(`${name}`)).toMatchObject({ errorInfo: { type: "NameError" } });
    }
    const session = await newSession();
    expect((await execute(names, session)).result).toEqual([own, []]);
  });
});
