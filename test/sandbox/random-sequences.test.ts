import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { runOn, startTestSandbox } from "../support/sandbox.ts";
import { type Answerer, offered } from "../support/tools.ts";

/** How many sequences to run, and for how long at the most: `SEQUENCES=2000 npx vitest run test/sandbox/random-sequences.test.ts`. */
const SEQUENCES = Number(process.env.SEQUENCES ?? 15);
const LIMIT_MS = process.env.SEQUENCES === undefined ? 20_000 : 24 * 60 * 60_000;

/** Of programs that use numpy, what it loads when it is first used included. */
const NUMPY_FRAGMENTS: readonly ((n: number) => string)[] = [
  (n) => `x = np.arange(${n} * 1000.0); print(x.sum(), x.dtype)`,
  (n) => `print(np.linalg.inv(np.eye(${n + 1}) * 2)[0, 0], np.dot(np.ones(${n}), np.ones(${n})))`,
  (n) => `import numpy.fft; print(np.fft.fft(np.arange(${n + 2})).real.round(6))`,
  (n) => `import numpy.ma; print(np.ma.array(range(5), mask=[i < ${n} for i in range(5)]).sum())`,
  (n) => `np.random.seed(${n}); print(np.random.random(3), np.random.default_rng(${n}).integers(0, 99, 5))`,
  (n) => `import numpy.testing; numpy.testing.assert_allclose(${n}, ${n})`,
  (n) => `import numpy.ctypeslib; print(np.ctypeslib.as_ctypes(np.arange(${n + 1}, dtype=np.int8))[0])`,
  (n) =>
    `from numpy.lib import recfunctions; print(recfunctions.structured_to_unstructured(np.zeros(${n}, "i4,i4")).shape)`,
  (n) => `from numpy.lib import stride_tricks; print(stride_tricks.sliding_window_view(np.arange(9), ${n + 1}).shape)`,
  (n) => `np.set_printoptions(precision=${n}); print(np.array([1 / 3]))`,
  (n) => `np.seterr(all="${n % 2 ? "raise" : "ignore"}"); print(np.geterr(), np.array([1.0]) / np.array([${n % 3}.0]))`,
  (n) => `np.sum = lambda *a: "patched ${n}"; np.float64.__module__; print(np.sum([1]))`,
  (n) => `np.save("/tmp/a${n}.npy", np.arange(${n})); print(np.load("/tmp/a${n}.npy").shape)`,
  (n) => `print(np.polynomial.Polynomial([1, ${n}]).roots(), np.unique(np.arange(${n}) % 3))`,
  (n) => `import sys; sys.modules.pop("numpy.fft", None); import numpy.fft; print(np.fft.fftfreq(${n + 1})[0])`,
  (n) =>
    `big = np.zeros(${n} * 2**18); big[-1:] = 1; print(big.sum(), np.sort(np.random.default_rng(1).random(${n})).shape)`,
  (n) => `print(np.array(["2024-01-0${n + 1}"], dtype="datetime64[D]") + 1, np.str_("é" * ${n}))`,
  (n) =>
    `print(np.einsum("ij,jk", np.ones((${n}, 2)), np.ones((2, ${n}))).shape, np.vectorize(lambda v: v + 1)(np.arange(3)))`,
];

/** Pieces of programs, each for some small number. What they do depends on nothing but what was done before them. */
const FRAGMENTS: ((n: number) => string)[] = [
  (n) => `x = globals().get("x", 0) + ${n}`,
  (n) => `print("n", ${n}, globals().get("x"))`,
  (n) => `print("é🐍" * ${n}, end="")`,
  (n) => `import sys; print(${n}, file=sys.stderr)`,
  (n) => `data = {str(i): [i] * ${n} for i in range(${n})}; print(len(data))`,
  (n) => `import json; print(json.dumps({"n": ${n}, "x": globals().get("x")}))`,
  (n) => `import json; json.dumps = lambda *a, **k: "patched ${n}"`,
  () => "import builtins; builtins.len = lambda x: -1",
  () => "import builtins; builtins.secret = 1",
  () => "print('secret' in dir(__builtins__), sorted(k for k in globals() if not k.startswith('_')))",
  (n) => `import sys; sys.path.insert(0, "/tmp/${n}"); print(sys.path)`,
  (n) => `import sys; sys.setrecursionlimit(${200 + n}); print(sys.getrecursionlimit())`,
  (n) => `def f(n): return n and f(n - 1)\nprint(f(${n * 20}))`,
  (n) =>
    `open("/tmp/f${n}", "a").write("${n}"); import os; print(sorted(os.listdir("/tmp")), open("/tmp/f${n}").read())`,
  (n) => `import os; os.makedirs("/home/pyodide/d${n}/e", exist_ok=True); print(sorted(os.walk("/home/pyodide")))`,
  (n) =>
    `import os\ntry: os.rename("/home/pyodide/d${n}", "/home/pyodide/d${(n + 1) % 9}")\nexcept OSError as e: print(e)`,
  (n) => `import os\ntry: os.chdir("/home/pyodide/d${n}")\nexcept OSError as e: print(e)\nprint(os.getcwd())`,
  (n) =>
    `open("mod${n}.py", "w").write("v = ${n}")\nimport sys, importlib; sys.path.insert(0, ""); importlib.invalidate_caches()\nimport mod${n}; print(mod${n}.v)`,
  (n) => `import os; os.environ["V${n}"] = "${n}"; print(sorted(k for k in os.environ if k.startswith("V")))`,
  (n) => `import os; r, w = os.pipe(); os.write(w, b"${n}"); print(r, w, os.read(r, 9))`,
  (n) => `import os; print(os.dup(${n % 3}), os.stat("/tmp").st_ino)`,
  () => "import os; os.close(1)",
  () => "import sys, io; sys.stdout = io.StringIO()",
  (n) => `blob = bytearray(${n} * 2**20); blob[-1:] = b"x"; print(len(blob))`,
  (n) => `blobs = [bytes([${n}]) * 2**16 for _ in range(${n * 4})]; del blobs[::2]`,
  (n) => `import gc; gc.set_threshold(${n + 1}); print(gc.collect() >= 0, gc.get_threshold())`,
  (n) => `class C${n}:\n  def __del__(self): print("del ${n}")\nc = C${n}()`,
  (n) => `class C:\n  def __init__(self): self.me = self\n  def __del__(self): print("cycle ${n}")\nC()`,
  (n) => `import warnings; warnings.simplefilter("${n % 2 ? "error" : "ignore"}"); warnings.warn("w${n}")`,
  (n) => `import decimal; decimal.getcontext().prec = ${n + 1}; print(decimal.Decimal(1) / 7)`,
  (n) => `import logging; logging.basicConfig(level=${n}); logging.warning("w${n}")`,
  (n) => `import atexit; atexit.register(print, ${n}); print(atexit._ncallbacks())`,
  () => "import locale; print(locale.setlocale(locale.LC_ALL, 'C'))",
  (n) =>
    `import asyncio\nasync def co():\n  await asyncio.sleep(0)\n  return ${n}\nprint(await asyncio.gather(*(co() for _ in range(${n}))))`,
  (n) =>
    `import asyncio\nasync def never(): await asyncio.sleep(1000)\nt = asyncio.ensure_future(never()); await asyncio.sleep(0); print(len(asyncio.all_tasks()), ${n})`,
  () => "import asyncio; asyncio.get_event_loop().close()",
  (n) => `g = (i * ${n} for i in range(100)); print(next(g), next(g))`,
  (n) => `import re; print(re.findall("(a{${n}})", "a" * 50))`,
  (n) => `import random; random.seed(${n}); print(random.random(), random.sample(range(99), 5))`,
  (n) =>
    `import itertools, functools, collections; print(collections.Counter("abra" * ${n}).most_common(), functools.reduce(lambda a, b: a * b, range(1, ${n} + 2)))`,
  (n) => `import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass P:\n  x: int = ${n}\nprint(P(), hash(P()))`,
  (n) =>
    `import statistics, datetime, fractions; print(statistics.fmean(range(${n} + 1)), datetime.date(2024, 1, 1 + ${n}), fractions.Fraction(${n}, 7))`,
  (n) =>
    `import zlib, hashlib, base64; print(hashlib.sha256(bytes(${n})).hexdigest()[:9], len(zlib.compress(bytes(${n * 999}))), base64.b64encode(bytes(${n})))`,
  (n) =>
    `import threading; l = threading.local(); l.x = ${n}\ntry: threading.Thread(target=print).start()\nexcept RuntimeError as e: print(e)`,
  (n) => `import sys; print(sys.getrefcount(None) > 0, sys.intern("s${n}"), len(sys.modules) > 100)`,
  (n) => `import sys; sys.modules.pop("${["json", "re", "random", "os", "logging"][n % 5]}", None)`,
  (n) => `import sys; sys.settrace(lambda *a: None); sys.setprofile(None); y${n} = 1; sys.settrace(None)`,
  (n) => `import contextvars; v = contextvars.ContextVar("v"); v.set(${n}); print(v.get())`,
  (n) => `import mmap; m = mmap.mmap(-1, ${n + 1} * 4096); m[0] = ${n}; print(m[0], len(m))`,
  (n) => `import ctypes; ctypes.memset(ctypes.create_string_buffer(${n * 100 + 1}), ${n}, ${n * 100})`,
  (n) => `import ctypes; ctypes.c_uint32.from_address(id(7) + 12).value = 7; print(7 + ${n})`,
  (n) => `from types import SimpleNamespace as S; print(S(a=${n}), type("T${n}", (int,), {})(${n}) + 1)`,
  (n) => `display({"n": ${n}})`,
  (n) => `try: 1 / 0\nexcept ZeroDivisionError as e: kept = e; print(repr(e), ${n})`,
  (n) => `raise ValueError(${n})`,
  (n) => `import sys; sys.exit(${n})`,
  () => "import os; os._exit(3)",
  () => "def r(): return r()\nr()",
  (n) => `[].pop(${n})`,
  () => "x = (",
  () => "from pyodide.ffi import to_js; to_js([1])",
  (n) => `print("x" * (${n} * 200_000))`,
  (n) => `print(echo(n=${n}, x=str(globals().get("x")))["n"], [echo(i=i)["i"] for i in range(${n})])`,
  (n) => `import tools\ntry: tools.call("fail", n=${n})\nexcept tools.ToolError as e: print(e, e.name)`,
  (n) => `import asyncio, tools; print(await asyncio.gather(*(tools.acall("echo", i=i) for i in range(${n}))))`,
  (n) =>
    `import asyncio, tools\nt = asyncio.create_task(tools.acall("slow", n=${n})); await asyncio.sleep(0); print(t.done())`,
  (n) => `print(input("line ${n}? "), len(echo(big="é" * ${n * 50_000})["big"]))`,
  (n) =>
    `import tools; echo = None; print(tools.call("echo", n=${n}), sorted(k for k in globals() if k in ("echo", "fail")))`,
  (n) => `echo(n=object())\n${n}`,
];

/** What is called here: `slow` is not answered at all. */
const TOOLS = ["echo", "fail", "slow"].map((name) => ({ name }));
const answer: Answerer = (name, input) => {
  if (name === "slow") return undefined;
  if (name === "fail") throw new Error("no");
  return input;
};

if (process.env.TEST_PACKAGES === "numpy") FRAGMENTS.push(...NUMPY_FRAGMENTS, ...NUMPY_FRAGMENTS);

const fragment = fc.tuple(fc.nat(FRAGMENTS.length - 1), fc.nat(8)).map(([index, n]) => FRAGMENTS[index]?.(n) ?? "");
const program = fc
  .tuple(
    fc.array(fragment, { minLength: 1, maxLength: 6 }),
    fc.constantFrom("", "x", "globals().get('x')", "[1, 2.5, None]"),
  )
  .map(([fragments, last]) => [...fragments, last].join("\n"));

/** Everything that a caller gets, but the time it took. */
async function replyOf(sandbox: Sandbox, code: string) {
  const job = offered(TOOLS, answer);
  using _job = job.pending;
  const { result, verdict } = await runOn(sandbox, code, job);
  const { executionTimeMs: _, cpuTimeMs: __, ...reply } = result;
  return { reply, verdict };
}

const started = new Set<Sandbox>();
async function start(): Promise<Sandbox> {
  const sandbox = await startTestSandbox({ verifyRewind: true, hashBaseline: true });
  started.add(sandbox);
  sandbox.ended.then(() => started.delete(sandbox));
  return sandbox;
}

let used: Sandbox;
let next: Promise<Sandbox>;
/** A process that has run nothing yet. The one after it starts meanwhile. */
async function fresh(): Promise<Sandbox> {
  const sandbox = await next;
  next = start();
  return sandbox;
}

beforeAll(async () => {
  used = await start();
  next = start();
});
afterAll(async () => {
  await next;
  const all = [...started];
  for (const sandbox of all) sandbox.kill("the test is done");
  await Promise.all(all.map((sandbox) => sandbox.ended));
});

test("two processes that boot one image have the same memory", async () => {
  const other = await fresh();
  expect(used.baseline).toMatch(/^[0-9a-f]{64}$/);
  expect(other.baseline).toBe(used.baseline);
  other.kill("compared");
});

test("programs one after another give, byte for byte, what each gives in a new process", {
  timeout: LIMIT_MS + 120_000,
}, async () => {
  const deadline = performance.now() + LIMIT_MS;
  let programs = 0;
  let rewinds = 0;
  const property = fc.asyncProperty(fc.array(program, { minLength: 2, maxLength: 5 }), async (sequence) => {
    for (const code of sequence) {
      // Not fast-check's own limit: it leaves the last sequence running.
      if (performance.now() > deadline) return;
      const { reply, verdict } = await replyOf(used, code);
      const reference = await fresh();
      const alone = await replyOf(reference, code);
      reference.kill("compared");
      programs++;
      // Where an interrupt meets a program that has no end is a matter of time; that it has none is not.
      const isStopped = (of: typeof reply) =>
        ["timeout", "cpu_limit", "cancelled"].includes(of.status) ? of.status : null;
      expect({ code, stopped: isStopped(reply) }).toEqual({ code, stopped: isStopped(alone.reply) });
      if (isStopped(reply) === null) expect({ code, ...reply }).toEqual({ code, ...alone.reply });
      expect(verdict).not.toMatchObject({ reason: "the rewind is not exact" });
      if (verdict.state === "pristine") rewinds++;
      else used = await fresh();
    }
  });
  await fc.assert(property, { numRuns: SEQUENCES, endOnFailure: true });
  console.info(`${programs} programs compared, ${rewinds} of them rewound`);
  // Most programs are ordinary ones, and a sandbox that was always replaced would prove nothing.
  expect(rewinds).toBeGreaterThan(programs / 2);
});

test("after many executions the memory is the baseline's, byte for byte", {
  timeout: LIMIT_MS + 60_000,
}, async () => {
  const deadline = performance.now() + LIMIT_MS / 3;
  let executions = 0;
  for (const code of fc.sample(program, 10 * SEQUENCES)) {
    if (executions > 5 && performance.now() > deadline) break;
    const { verdict } = await replyOf(used, code);
    executions++;
    if (verdict.state === "discard") {
      expect({ code, reason: verdict.reason }).not.toMatchObject({ reason: "the rewind is not exact" });
      used = await fresh();
    }
  }
  console.info(`${executions} executions, the memory compared after each`);
  expect(executions).toBeGreaterThan(5);
});
