import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { toolSet } from "../../src/tools/definitions.ts";
import { stubsOf } from "../../src/tools/stubs.ts";
import { py } from "../support/engine.ts";
import { runOn, startTestSandbox } from "../support/sandbox.ts";
import { type Answerer, offered } from "../support/tools.ts";

const QUERY = {
  name: "query",
  description: "Runs SQL.",
  parameters: {
    type: "object",
    properties: {
      sql: { type: "string", description: "The statement." },
      limit: { type: "integer", default: 10 },
      note: { type: "string" },
      maybe: { type: ["string", "null"] },
    },
    required: ["sql"],
  },
  returns: { type: "array", items: { type: "object" } },
};
const ECHO = { name: "echo" };
const DASH = {
  name: "a-b",
  parameters: { type: "object", properties: { "first-name": { type: "string" }, class: {} } },
};

let sandbox: Sandbox;
beforeAll(async () => {
  sandbox = await startTestSandbox({ verifyRewind: true });
});
afterAll(async () => {
  sandbox.kill("the test is done");
  await sandbox.ended;
});

const echo: Answerer = (_name, input) => input;
async function run(
  code: string,
  answerer: Answerer = echo,
  more: Parameters<typeof offered>[2] & { timeoutMs?: number } = {},
) {
  const { timeoutMs, ...options } = more;
  const job = offered([QUERY, ECHO, DASH], answerer, options);
  using _ = job.pending;
  const { result, verdict } = await runOn(sandbox, code, { ...job, ...(timeoutMs !== undefined && { timeoutMs }) });
  return { ...result, verdict, ended: job.ended };
}
const value = async (code: string, ...more: [Answerer?, object?]) => {
  const { result, errorInfo, verdict } = await run(code, ...more);
  expect(errorInfo).toBeUndefined();
  expect(verdict).toMatchObject({ state: "pristine" });
  return result;
};

describe("a function of a tool", () => {
  test("takes arguments by position and by name, and leaves out what is not given", async () => {
    expect(await value('[query("a"), query(sql="b", limit=2), query("c", 3, "n", None)]')).toEqual([
      { sql: "a" },
      { sql: "b", limit: 2 },
      { sql: "c", limit: 3, note: "n", maybe: null },
    ]);
    // None is what an argument is that is not given.
    expect(await value('query("a", note=None, maybe=None)')).toEqual({ sql: "a", maybe: null });
  });

  test("has a name, a signature and documentation", async () => {
    const code = py`
      import inspect, contextlib, io
      text = io.StringIO()
      with contextlib.redirect_stdout(text):
          help(query)
      [query.__name__, str(inspect.signature(query)), query.__doc__, text.getvalue()]
    `;
    const signature = "(sql: str, limit: int = 10, note: str = None, maybe: str | None = None) -> list[dict]";
    const doc = "Runs SQL.\n\nArguments:\n    sql: The statement.";
    expect(await value(code)).toEqual([
      "query",
      signature,
      doc,
      expect.stringContaining(`query${signature}\n    Runs SQL.`),
    ]);
  });

  test("has the names that Python can have", async () => {
    expect(await value('a_b(first_name="x", class_=1)')).toEqual({ "first-name": "x", class: 1 });
    expect(await value('import tools; tools.call("a-b", **{"first-name": "x", "class": 1})')).toEqual({
      "first-name": "x",
      class: 1,
    });
  });

  test.each([
    ["query()", "query() missing a required argument: 'sql'"],
    ["query(1)", 'query() argument sql: Instance type "number" is invalid. Expected "string"'],
    ["query('a', nonsense=1)", "query() got an unexpected keyword argument 'nonsense'"],
    ["query('a', limit=1.5)", 'query() argument limit: Instance type "number" is invalid. Expected "integer"'],
    ["query('a', sql='b')", "query() multiple values for argument 'sql'"],
    ["echo(x=object())", "a tool takes JSON, and object is none"],
    ["echo(x={1: {2}})", "a tool takes JSON, and set is none"],
  ])("%s is a TypeError before the client is asked", async (code, message) => {
    const { errorInfo, ended } = await run(code, () => {
      throw new Error("the client was asked");
    });
    expect(errorInfo).toMatchObject({ type: "TypeError", message });
    expect(ended.every(({ outcome }) => outcome === "refused")).toBe(true);
  });

  test("passes on every kind of JSON as it is", async () => {
    const code = [
      String.raw`values = [None, True, 10**30, -0.0, 1e300, "é\ud800\n\"", [], {"a": [{"b": {}}]}, (1, 2)]`,
      'repr(echo(v=values)["v"])',
    ].join("\n");
    // Through the client's JavaScript, which has no integers of that size.
    expect(await value(code)).toContain("[None, True, 1e+30, 0");
    expect(await value("echo(x=float('nan')) if False else 1")).toBe(1);
    expect((await run("echo(x=float('nan'))")).errorInfo).toMatchObject({ type: "ValueError" });
  });

  test("is told when it makes more calls than it may, and when a value is too large", async () => {
    const code = py`
      import tools
      done = 0
      try:
          while True:
              echo()
              done += 1
      except tools.ToolError as error:
          message = str(error)
      done, message
    `;
    expect(await value(code, echo, { maxCalls: 20 })).toEqual([
      20,
      "an execution may make 20 calls of tools at the most",
    ]);
    const large = "import tools\ntry: echo(x='x' * (11 << 20))\nexcept tools.ToolError as e: print(e)";
    expect((await run(large)).stdout).toMatch(/too large: they have more than 10485760 bytes/);
    const deep =
      "import tools\nx = []\nfor _ in range(150): x = [x]\ntry: echo(x=x)\nexcept tools.ToolError as e: print(e)";
    expect((await run(deep)).stdout).toMatch(/deeper than 100 levels/);
    expect(await value("len(echo(x=list(range(100_000)))['x'])")).toBe(100_000);
  });

  test("a thousand calls in a loop", async () => {
    expect(await value("sum(echo(n=n)['n'] for n in range(1000))")).toBe(499_500);
  });

  test("may be called anything that a variable may", async () => {
    const job = offered([{ name: "print" }, { name: "len" }], () => "the client's");
    using _ = job.pending;
    const { result } = await runOn(sandbox, "[print(), len(), [].__len__()]", job);
    expect(result.result).toEqual(["the client's", "the client's", 0]);
    expect((await runOn(sandbox, "len([1])")).result.result).toBe(1);
  });
});

describe("the module tools", () => {
  test("lists and calls, whatever the mode", async () => {
    const code = py`
      import tools
      assert tools.call("echo", n=1) == {"n": 1}
      assert await tools.acall("echo", n=2) == {"n": 2}
      [one["signature"] for one in tools.list()]
    `;
    const signatures = [
      expect.stringMatching(/^query\(sql: str/),
      "echo(**arguments) -> Any",
      "a_b(first_name: str = None, class_: Any = None) -> Any",
    ];
    expect(await value(code)).toEqual(signatures);
    expect(await value(code, echo, { mode: "async" })).toEqual(signatures);
    expect((await run("import tools; tools.call('nothing')")).errorInfo).toMatchObject({
      type: "ToolError",
      message: expect.stringContaining("no tool 'nothing'"),
    });
  });

  test("is there for executions that have tools, and for no other", async () => {
    expect((await runOn(sandbox, "import tools")).result.errorInfo).toMatchObject({ type: "ModuleNotFoundError" });
    expect((await runOn(sandbox, "query")).result.errorInfo).toMatchObject({ type: "NameError" });
  });
});

describe("in a session", () => {
  const session = async (steps: { code: string; tools?: boolean }[]) => {
    const own = await startTestSandbox();
    const results: unknown[] = [];
    try {
      await own.load(null, { entries: [], maxBytes: 1e6, maxFiles: 100 }, null);
      for (const [index, { code, tools }] of steps.entries()) {
        const job = tools ? offered([ECHO], echo) : null;
        const { result } = await runOn(own, code, { ...job, execution: index + 1 });
        job?.pending[Symbol.dispose]();
        results.push(result.errorInfo ? `${result.errorInfo.type}: ${result.errorInfo.message}` : result.result);
      }
    } finally {
      own.kill("the test is done");
      await own.ended;
    }
    return results;
  };

  test("tools belong to the execution: the next has its own, and what code has put in their place", async () => {
    expect(
      await session([
        { code: "kept = echo; echo(n=1)", tools: true },
        { code: "'echo' in globals(), input.__module__" },
        { code: "kept(n=2)" },
        { code: "kept(n=3)", tools: true },
        { code: "echo = 'mine'", tools: true },
        { code: "echo" },
      ]),
    ).toEqual([
      { n: 1 },
      [false, "builtins"],
      'ToolError: the sandbox does not offer "tool-start" here',
      { n: 3 },
      null,
      "mine",
    ]);
  });

  test("a call that an execution has left behind is an error for what still awaits it", async () => {
    const begin = py`
      import asyncio, tools
      async def wait():
          try: return await tools.acall("slow")
          except tools.ToolError as error: return str(error)
      task = asyncio.create_task(wait())
      await asyncio.sleep(0)
    `;
    const own = await startTestSandbox();
    try {
      await own.load(null, { entries: [], maxBytes: 1e6, maxFiles: 100 }, null);
      const job = offered([{ name: "slow" }], () => undefined);
      expect((await runOn(own, begin, { ...job, execution: 1 })).result.errorInfo).toBeUndefined();
      job.pending[Symbol.dispose]();
      const next = offered([ECHO], echo);
      const { result } = await runOn(own, "await task", { ...next, execution: 2 });
      expect(result.result).toBe("the execution that made this call is over");
    } finally {
      own.kill("the test is done");
      await own.ended;
    }
  });
});

describe("stopping", () => {
  test.each([
    ["that waits", "echo(n=1)"],
    ["that catches everything and calls again", "while True:\n    try: echo(n=1)\n    except BaseException: pass"],
    ["of coroutines", "import asyncio, tools\nawait asyncio.gather(*(tools.acall('echo') for _ in range(3)))"],
    ["that reads input in a loop", "while True: input()"],
    ["in a thread that is none", "import asyncio\nawait asyncio.to_thread(input, 'x')"],
  ])("code %s", async (_name, code) => {
    const controller = new AbortController();
    const job = offered([ECHO], () => void setImmediate(() => controller.abort()));
    using _ = job.pending;
    const own = await startTestSandbox();
    try {
      const { result } = await runOn(own, code, { ...job, signal: controller.signal });
      expect(result).toMatchObject({ status: "cancelled", success: false });
    } finally {
      own.kill("the test is done");
      await own.ended;
    }
  });

  test("all that an execution may wait has an end", async () => {
    const code = "while True:\n    try: echo()\n    except Exception: pass";
    const { status, errorInfo, executionTimeMs } = await run(code, () => undefined, {
      maxWaitMs: 50,
      callTimeoutMs: 20,
    });
    expect({ status, type: errorInfo?.type }).toEqual({ status: "tool_wait_expired", type: "ToolWaitExpired" });
    expect(executionTimeMs).toBeGreaterThanOrEqual(0);
  });
});

describe("check", () => {
  const check = async (code: string, mode: "sync" | "async" = "sync") => {
    const { errorInfo, stdout } = await run(`print("ran")\n${code}`, echo, { check: true, mode });
    return errorInfo ? { ...errorInfo, ran: stdout.includes("ran") } : { ran: stdout.includes("ran") };
  };

  test.each([
    ["query()", "query() needs the argument 'sql'", 2, 1],
    ["if False:\n    x = 1 + query('a', limits=3)", "query() has no argument 'limits'; is it 'limit'?", 3, 13],
    ["quer('a')", "there is no function or tool 'quer'; is it 'query'?", 2, 1],
    ["def f():\n    return [nothing() for _ in range(3)]", "there is no function or tool 'nothing'", 3, 13],
    ["import tools\ntools.call('quer', sql='a')", "there is no tool 'quer'; is it 'query'?", 3, 1],
    ["import tools\ntools.call('query')", "query() needs the argument 'sql'", 3, 1],
    ["query('a', 1, 'n', None, 5)", "query() takes 4 positional arguments, and 5 are given", 2, 1],
    ["query('a', sql='b')", "query() gets the argument 'sql' twice", 2, 1],
  ])("refuses %j before anything runs", async (code, message, line, column) => {
    expect(await check(code)).toMatchObject({
      type: "ToolCheckError",
      message: expect.stringContaining(message),
      line,
      column,
      ran: false,
    });
  });

  test.each([
    "query('a')",
    "query(*['a'])",
    "query(**{'sql': 'a'})",
    "echo(anything=1)",
    "def query(): return 1\nquery()",
    "len([1]); print(); sorted([2])",
    "from math import *\nsqrt(4)",
    "import math as m\nm.sqrt(4)",
    "f = lambda g: g\nf(3)",
    "class A: pass\nA()",
    "for c in [len]: c('')",
    "with open('/tmp/x', 'w') as h: h.write('')",
    "import tools\ntools.call('a-b')",
    "display(1)",
    "match [len]:\n    case [fn]: fn('')",
  ])("takes %j", async (code) => expect(await check(code)).toEqual({ ran: true }));

  test("takes code as notebooks have it, and a syntax error is one", async () => {
    expect(await check("%time query('a')")).toEqual({ ran: true });
    expect(await check("x = (")).toMatchObject({ type: "SyntaxError", ran: false });
  });
});

test("stubs are Python, and say what signatures say", async () => {
  const stubs = stubsOf([...toolSet([QUERY, ECHO, DASH, { name: "odd", description: 'a"""b\\' }]).values()], "sync");
  const code = py`
    import ast
    tree = ast.parse(stubs)
    [ast.get_docstring(node) if isinstance(node, ast.FunctionDef) and node.name == "odd" else node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
  `;
  const { result } = await runOn(sandbox, code, { context: JSON.stringify({ stubs }) });
  expect(result.result).toEqual(["query", "echo", "a_b", 'a"""b\\']);
});
