import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

/** Runs of the property; each takes seconds. */
const RUNS = Number(process.env.SESSION_PROGRAM_RUNS ?? 2);

const dataDir = temporaryFolder("session-programs");
let server: TestServer;
/** What nothing is done to. Its pool is the session's alone, so it stays where it is. */
let uninterrupted: TestServer;

const start = () => startTestServer({ DATA_DIR: dataDir, POOL_SIZE: "2", SESSION_DURABILITY: "commit" });

beforeAll(async () => {
  server = await start();
  uninterrupted = await startTestServer();
});

afterAll(async () => {
  await server.stop(0);
  await uninterrupted.stop(0);
});

const PRELUDE = `
import asyncio, collections, contextvars, datetime, decimal, functools, hashlib, heapq, io, itertools, random, re
import sqlite3, weakref, zlib
random.seed(20)

def fibonacci():
    a, b = 0, 1
    while True:
        sent = yield a
        a, b = (b, a + b) if sent is None else (sent, sent + 1)
fib = fibonacci()
next(fib)

class Awaitable:
    def __await__(self):
        return (yield "waiting")
async def conversation():
    heard = []
    while True:
        heard.append(await Awaitable())
        if len(heard) % 3 == 0:
            heard = [sum(heard)]
talk = conversation()
talk.send(None)

queue = asyncio.Queue()
done = []
async def worker():
    while True:
        item = await queue.get()
        await asyncio.sleep(0)
        done.append(item * 2)
        queue.task_done()
async def begin():
    return asyncio.ensure_future(worker())
task = await begin()

def make_counter(step):
    total = 0
    def count(n=1):
        nonlocal total
        total += n * step
        return total
    return count
counters = [make_counter(i) for i in (1, 10)]

class Node:
    __slots__ = ("value", "next", "__weakref__")
    made = 0
    def __init__(self, value, next=None):
        self.value, self.next = value, next
        Node.made += 1
    def __iter__(self):
        node = self
        while node:
            yield node.value
            node = node.next
chain = None
watched = weakref.WeakValueDictionary()

log = open("log.txt", "w+")
binary = open("/tmp/data.bin", "w+b", buffering=0)
database = sqlite3.connect(":memory:")
database.execute("create table t (k integer primary key, v text)")
digest = hashlib.sha256()
packer = zlib.compressobj()
packed = b""
text = io.StringIO()
variable = contextvars.ContextVar("variable", default=0)
window = collections.deque(maxlen=5)
heap = []
cycle = itertools.cycle("abc")
words = {}
failures = []

@functools.lru_cache(maxsize=4)
def square(n):
    return n * n
`;

const number = fc.integer({ min: -1000, max: 1000 });
const name = fc.constantFrom("ada", "bob", "eve", "zoë");
const STEPS: readonly fc.Arbitrary<string>[] = [
  fc.constant("next(fib)"),
  number.map((n) => `fib.send(${n})`),
  number.map((n) => `[talk.send(${n}), talk.cr_frame.f_locals["heard"]]`),
  number.map((n) => `queue.put_nowait(${n}); await queue.join(); [list(done), task.done()]`),
  number.map((n) => `[counter(${n}) for counter in counters]`),
  number.map((n) => `chain = Node(${n}, chain); watched[${n}] = chain; [list(chain), Node.made, len(watched)]`),
  fc.constant("chain = chain.next if chain else None; [len(watched), sorted(watched)]"),
  name.map((w) => `print("${w}", file=log); log.tell()`),
  fc.constant("log.flush(); at = log.tell(); log.seek(0); lines = log.readlines(); log.seek(at); lines"),
  fc
    .nat(50)
    .map((n) => `[binary.seek(${n}), binary.write(b"x" * ${n % 7}), binary.seek(0), binary.read().count(b"x")]`),
  fc.constant(
    `import os; os.rename("log.txt", "log2.txt") if os.path.exists("log.txt") else None; sorted(os.listdir("."))`,
  ),
  fc
    .tuple(number, name)
    .map(([k, v]) => `database.execute("insert or replace into t values (?, ?)", (${k}, "${v}")).rowcount`),
  fc.constant('database.execute("select count(*), group_concat(v) from (select v from t order by k)").fetchall()'),
  name.map((v) => `cursor = database.execute("select k from t where v = ? order by k", ("${v}",)); cursor.fetchone()`),
  fc.constant("cursor.fetchone() if 'cursor' in globals() else None"),
  fc.integer({ min: 1, max: 40 }).map((n) => `decimal.getcontext().prec = ${n}; str(decimal.Decimal(1) / 7)`),
  fc.constant("str(decimal.Decimal(2).sqrt())"),
  fc.constant("random.random()"),
  fc.constant("random.sample(range(1000), 3)"),
  name.map((w) => `digest.update("${w}".encode()); digest.hexdigest()`),
  name.map(
    (w) =>
      `packed += packer.compress(b"${"abc".repeat(20)}") + packer.flush(zlib.Z_SYNC_FLUSH); len(packed) and "${w}"`,
  ),
  fc.constant("zlib.decompressobj().decompress(packed).decode()"),
  name.map((w) => `text.write("${w}"); text.getvalue()`),
  number.map((n) => `variable.set(variable.get() + ${n}); variable.get()`),
  number.map((n) => `window.append(${n}); heapq.heappush(heap, ${n}); [list(window), heap[0]]`),
  fc.constant("next(cycle)"),
  name.map(
    (w) =>
      `words["${w}"] = words.get("${w}", 0) + 1; [list(words), sorted({*words, "x"}), hash("${w}") == hash("${w}")]`,
  ),
  fc.constant(
    "try:\n  1 / 0\nexcept ZeroDivisionError as e:\n  failures.append(e)\n[str(f.__traceback__.tb_lineno) for f in failures]",
  ),
  number.map((n) => `[square(${n % 6}), square.cache_info().hits]`),
  fc.constant("undefined_name"),
  fc.constant("x = [list(range(1000)) for _ in range(100)]; sum(map(sum, x))"),
  fc.constant("import gc; gc.collect() >= 0"),
  fc.constant("[m.group() for m in re.finditer(r'\\\\w+', text.getvalue())]"),
  fc.constant("datetime.timedelta(days=len(failures)).total_seconds()"),
  fc.constant("import colorsys; colorsys.rgb_to_hsv(.1, .2, .3)"),
];

/** For `test/numpy/`, where the environment has it. */
const HAS_NUMPY = process.env.TEST_PACKAGES === "numpy";
const NUMPY_PRELUDE = `
np.random.seed(20)
rng = np.random.default_rng(20)
grid = np.arange(24.0).reshape(4, 6)
view = grid[1:, ::2]
masked = np.ma.masked_greater(grid, 20)
table = np.zeros(3, dtype=[("name", "U8"), ("score", "f8")])
pairs = np.nditer(grid, flags=["multi_index"])
`;
const NUMPY_STEPS: readonly fc.Arbitrary<string>[] = [
  fc.constant("np.random.rand(3)"),
  fc.constant("rng.normal(size=2)"),
  number.map((n) => `grid[1, 2] = ${n}; [view.base is grid, view.sum(), grid.trace()]`),
  number.map((n) => `grid = grid + ${n}; [view.base is grid, float(grid.mean())]`),
  fc.constant("[masked.count(), float(masked.sum())]"),
  fc.tuple(fc.nat(2), name, number).map(([i, w, n]) => `table[${i}] = ("${w}", ${n}); np.sort(table, order="score")`),
  fc.constant("np.linalg.svd(grid, compute_uv=False).round(6)"),
  fc.constant("np.fft.fft(view[0]).real.round(6)"),
  fc.constant("[pairs.multi_index, float(pairs[0]), pairs.iternext()]"),
  fc.constant("np.save('grid.npy', grid); np.load('grid.npy', mmap_mode=None).shape"),
  fc.constant("big = np.ones((500, 500)); float((big @ big).sum())"),
];

/** What happens to the session between two steps. */
const EVENTS = {
  nothing: async () => {},
  hibernate: async () => {
    // As many at once as there are sandboxes: each has to be had, and none keeps the session.
    await Promise.all([1, 2].map(() => server.post("/api/execute", { code: "import time; time.sleep(0.02)" })));
    expect(server.executor.pool.status().resident).toBe(0);
  },
  killSandboxes: async () => {
    const sandboxes = server.executor.pool.sandboxes();
    for (const { pid } of sandboxes) process.kill(pid, "SIGKILL");
    await Promise.all(sandboxes.map(({ ended }) => ended));
  },
  restart: async () => {
    await server.stop(0);
    server = await start();
  },
} as const;

const event = fc.oneof(
  { weight: 4, arbitrary: fc.constant("nothing" as const) },
  { weight: 8, arbitrary: fc.constant("hibernate" as const) },
  { weight: 1, arbitrary: fc.constant("killSandboxes" as const) },
  { weight: 1, arbitrary: fc.constant("restart" as const) },
);

const steps = HAS_NUMPY ? [...STEPS, ...NUMPY_STEPS] : STEPS;
const program = fc.array(fc.tuple(fc.oneof(...steps), event), { minLength: 8, maxLength: 20 });

test("a program in a session that is put away, moved and crashed is the program left alone", {
  timeout: 60_000 + RUNS * 60_000,
}, async () => {
  const everyStep = steps.map((step): [string, "hibernate"] => [
    fc.sample(step, { numRuns: 1, seed: 1 })[0] ?? "",
    "hibernate",
  ]);
  await fc.assert(
    fc.asyncProperty(program, async (chosen) => {
      const ids = await Promise.all(
        [server, uninterrupted].map(async (on) => (await on.post("/api/sessions", {})).body.session.id),
      );
      const run = async (on: TestServer, session: string, code: string) => {
        const { body } = await on.post("/api/execute", { code, session });
        const { result, error, stdout, stderr } = body;
        return { result, error, stdout, stderr, restored: body.session?.restored };
      };
      const both = async (code: string) => {
        const [here, there] = await Promise.all([run(server, ids[0], code), run(uninterrupted, ids[1], code)]);
        expect({ code, ...here }).toEqual({ code, ...there });
      };
      await both(PRELUDE);
      if (HAS_NUMPY) await both(NUMPY_PRELUDE);
      for (const [code, happens] of chosen) {
        await EVENTS[happens]();
        await both(code);
      }
      await Promise.all([server.delete(`/api/sessions/${ids[0]}`), uninterrupted.delete(`/api/sessions/${ids[1]}`)]);
    }),
    { numRuns: RUNS, examples: [[everyStep]] },
  );
});
