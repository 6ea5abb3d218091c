import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TEST_WHEELS } from "../support/config.ts";
import { py } from "../support/engine.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ POOL_SIZE: "2", SESSION_DURABILITY: "commit" });
});
afterAll(async () => await server?.stop(0));

async function run(code: string, more: object = {}) {
  return (await server.post("/api/execute", { code, ...more })).body;
}
async function value(code: string, more: object = {}) {
  const { result, error, stderr } = await run(code, more);
  expect({ code, error, stderr }).toEqual({ code, error: null, stderr: "" });
  return result;
}
const newSession = async (): Promise<string> => (await server.post("/api/sessions", {})).body.session.id;

/** What leaves a file open, and what the next execution finds. */
const LEFT_OPEN: Readonly<Record<string, readonly [leave: string, look: string, found: unknown]>> = {
  text: ["f = open('noclose.txt', 'w')\nf.write('hello')", "open('noclose.txt').read()", "hello"],
  binary: ["f = open('b.bin', 'wb')\nf.write(b'\\x01\\x02')", "list(open('b.bin', 'rb').read())", [1, 2]],
  "read and written": ["f = open('rw', 'w+')\nf.write('abc'); f.seek(1); f.write('X')", "open('rw').read()", "aXc"],
  appended: ["open('a', 'w').write('1')\nf = open('a', 'a')\nf.write('2')", "open('a').read()", "12"],
  "printed to": ["f = open('p.txt', 'w')\nprint('line', file=f)", "open('p.txt').read()", "line\n"],
  "in a function's cycle": [
    "class Log:\n  def __init__(self):\n    self.me = self; self.f = open('cycle', 'w'); self.f.write('kept')\nLog()\nNone",
    "open('cycle').read()",
    "kept",
  ],
  "held by a closure": [
    "def make():\n  f = open('closure', 'w')\n  def write(x): f.write(x)\n  return write\nw = make(); w('closed over')",
    "open('closure').read()",
    "closed over",
  ],
  csv: [
    "import csv\nw = csv.writer(open('t.csv', 'w', newline=''))\nw.writerow(['a', 1])",
    "open('t.csv', newline='').read()",
    "a,1\r\n",
  ],
  pickle: [
    "import pickle\nf = open('x.pkl', 'wb')\npickle.dump([1, 2], f)",
    "import pickle; pickle.load(open('x.pkl', 'rb'))",
    [1, 2],
  ],
  json: [
    "import json\nf = open('x.json', 'w')\njson.dump({'a': 1}, f)",
    "import json; json.load(open('x.json'))",
    { a: 1 },
  ],
  gzip: [
    "import gzip\nf = gzip.open('x.gz', 'wb')\nf.write(b'packed')",
    "import gzip; gzip.open('x.gz').read().decode()",
    "packed",
  ],
  "gzip text": [
    "import gzip\nf = gzip.open('t.gz', 'wt')\nf.write('packed')",
    "import gzip; gzip.open('t.gz', 'rt').read()",
    "packed",
  ],
  "gzip around an open file": [
    "import gzip\ng = open('o.gz', 'wb')\nf = gzip.GzipFile(fileobj=g, mode='wb')\nf.write(b'packed')",
    "import gzip; gzip.open('o.gz').read().decode()",
    "packed",
  ],
  bz2: [
    "import bz2\nf = bz2.open('x.bz2', 'wt')\nf.write('packed')",
    "import bz2; bz2.open('x.bz2', 'rt').read()",
    "packed",
  ],
  lzma: [
    "import lzma\nf = lzma.open('x.xz', 'wt')\nf.write('packed')",
    "import lzma; lzma.open('x.xz', 'rt').read()",
    "packed",
  ],
  zip: [
    "import zipfile\nz = zipfile.ZipFile('x.zip', 'w')\nz.writestr('in.txt', 'zipped')",
    "import zipfile; zipfile.ZipFile('x.zip').read('in.txt').decode()",
    "zipped",
  ],
  "a file within a zip": [
    "import zipfile\nz = zipfile.ZipFile('y.zip', 'w')\nf = z.open('in.txt', 'w')\nf.write(b'zipped')",
    "import zipfile; zipfile.ZipFile('y.zip').read('in.txt').decode()",
    "zipped",
  ],
  "text within a zip": [
    "import zipfile, io\nz = zipfile.ZipFile('z.zip', 'w')\nf = io.TextIOWrapper(z.open('in.txt', 'w'))\nf.write('zipped')",
    "import zipfile; zipfile.ZipFile('z.zip').read('in.txt').decode()",
    "zipped",
  ],
  tar: [
    "import tarfile, io\nt = tarfile.open('x.tar', 'w'); i = tarfile.TarInfo('in.txt'); i.size = 3; t.addfile(i, io.BytesIO(b'abc'))",
    "import tarfile; tarfile.open('x.tar').extractfile('in.txt').read().decode()",
    "abc",
  ],
  "tar.gz": [
    "import tarfile, io\nt = tarfile.open('x.tar.gz', 'w:gz'); i = tarfile.TarInfo('in.txt'); i.size = 3; t.addfile(i, io.BytesIO(b'abc'))",
    "import tarfile; tarfile.open('x.tar.gz').extractfile('in.txt').read().decode()",
    "abc",
  ],
  wave: [
    "import wave\nw = wave.open('x.wav', 'wb')\nw.setparams((1, 1, 8000, 0, 'NONE', ''))\nw.writeframesraw(b'abcd')",
    "import wave; wave.open('x.wav').getnframes()",
    4,
  ],
  "text around binary": [
    "import io\nf = io.TextIOWrapper(open('w.txt', 'wb'), encoding='utf-16')\nf.write('wide')",
    "open('w.txt', encoding='utf-16').read()",
    "wide",
  ],
  "a descriptor": [
    "import os\nf = os.fdopen(os.open('fd', os.O_CREAT | os.O_WRONLY), 'w')\nf.write('fd')",
    "open('fd').read()",
    "fd",
  ],
  "after an error": ["f = open('e', 'w')\nf.write('before')\n1 / 0", "open('e').read()", "before"],
  "after sys.exit": ["import sys\nf = open('x', 'w')\nf.write('before')\nsys.exit(3)", "open('x').read()", "before"],
  "after a timeout": ["f = open('t', 'w')\nf.write('before')\nwhile True: pass", "open('t').read()", "before"],
  "a temporary file, which deletes itself": [
    "import tempfile\nt = tempfile.NamedTemporaryFile('w', dir='.', prefix='tmp_'); t.write('x')\nd = tempfile.TemporaryDirectory(dir='.', prefix='tmp_')",
    "import glob; glob.glob('tmp_*')",
    [],
  ],
  "sqlite, whose transaction was not committed": [
    "import sqlite3\nc = sqlite3.connect('d.db'); c.execute('create table t (x)'); c.execute('insert into t values (1)'); c.commit(); c.execute('insert into t values (2)')",
    "import sqlite3, os\nc = sqlite3.connect('d.db'); r = [c.execute('select count(*) from t').fetchone()[0], os.path.exists('d.db-journal')]; c.close(); r",
    [1, false],
  ],
};

describe("files left open at the end of a program", () => {
  test.each(Object.entries(LEFT_OPEN))("%s", async (name, [leave, look, found]) => {
    const reply = await run(`${leave}\n`, { timeout: name.includes("timeout") ? 500 : 20_000 });
    if (!/error|exit|timeout/.test(name)) expect(reply).toMatchObject({ error: null, stderr: "" });
    expect(await value(look)).toEqual(found);
  });

  test("os._exit loses what was not written, as everywhere", async () => {
    await run("import os, atexit\natexit.register(print, 'never')\nf = open('lost', 'w')\nf.write('x')\nos._exit(0)");
    expect(await value("open('lost').read()")).toBe("");
  });

  test("in a session stay open, and show what was written", async () => {
    const session = await newSession();
    await value(
      "import gzip\nf = open('log.txt', 'w'); f.write('one '); g = gzip.open('g.gz', 'wt'); g.write('a'); None",
      { session },
    );
    const read = async () => (await server.get(`/api/sessions/${session}/files/log.txt`)).body;
    expect(await read()).toBe("one ");
    await value("f.write('two'); g.write('b'); None", { session });
    expect(await read()).toBe("one two");
    expect(
      await value("f.close(); g.close(); [open('log.txt').read(), gzip.open('g.gz', 'rt').read()]", { session }),
    ).toEqual(["one two", "ab"]);
  });
});

/** Programs, and what they print at their ends: [code, stdout, stderr]. */
const ENDS: Readonly<Record<string, readonly [code: string, stdout: string, stderr?: string | RegExp]>> = {
  atexit: ["import atexit\natexit.register(print, 'bye')\nprint('hi')", "hi\nbye\n"],
  "atexit, last in first out": ["import atexit\nfor i in range(3): atexit.register(print, i)", "2\n1\n0\n"],
  "atexit unregistered": ["import atexit\natexit.register(print, 'no')\natexit.unregister(print)", ""],
  "atexit that fails": [
    "import atexit\natexit.register(print, 'after')\n@atexit.register\ndef fail(): 1 / 0",
    "after\n",
    /^Exception ignored in atexit callback <function fail at 0x[0-9a-f]+>:\nTraceback [\s\S]*ZeroDivisionError: division by zero\n$/,
  ],
  "atexit after an error": ["import atexit\natexit.register(print, 'bye')\n1 / 0", "bye\n", /ZeroDivisionError/],
  "atexit after sys.exit": ["import atexit, sys\natexit.register(print, 'bye')\nsys.exit(0)", "bye\n"],
  "weakref.finalize": [
    "import weakref\nclass A: pass\na = A(); f = weakref.finalize(a, print, 'finalized')\nprint('hi')",
    "hi\nfinalized\n",
  ],
  "weakref.finalize without atexit": [
    "import weakref\nclass A: pass\na = A(); f = weakref.finalize(a, print, 'finalized'); f.atexit = False",
    "",
  ],
  __del__: [
    "class A:\n  def __init__(self, n): self.n = n\n  def __del__(self): print('del', self.n, total)\ntotal = 7\na = A(1); b = [A(2)]; c = {'k': A(3)}",
    "del 1 7\ndel 2 7\ndel 3 7\n",
  ],
  "__del__ in a cycle": ["class A:\n  def __del__(self): print('del')\na = A(); a.me = a\ndel a", "del\n"],
  "__del__ of what nothing refers to any more": ["class A:\n  def __del__(self): print('del')\nA()\nNone", "del\n"],
  "__del__ once": [
    "class A:\n  def __del__(self): print('del')\na = A()\ndel a\nb = A()\nprint('end')",
    "del\nend\ndel\n",
  ],
  "__del__ of a class without attributes": [
    "class A:\n  __slots__ = ()\n  def __del__(self): print('del')\na = A()",
    "del\n",
  ],
  "__del__ that fails": [
    "class A:\n  def __del__(self): 1 / 0\na = A()",
    "",
    /^Exception ignored[^\n]*<function A.__del__ at 0x[0-9a-f]+>:?\nTraceback [\s\S]*ZeroDivisionError: division by zero\n$/,
  ],
  "__del__ after an error": [
    "class A:\n  def __del__(self): print('del')\na = A()\n1 / 0",
    "del\n",
    /ZeroDivisionError/,
  ],
  "__del__ made by exec": ["exec('class A:\\n  def __' + 'del__(self): print(1)')\na = A()", "1\n"],
  "finally of a suspended generator": [
    "def g():\n  try: yield 1\n  finally: print('finally')\nx = g(); next(x)",
    "finally\n",
  ],
  "with in a suspended generator": [
    "import contextlib\n@contextlib.contextmanager\ndef m():\n  try: yield\n  finally: print('left')\ndef g():\n  with m(): yield\nx = g(); next(x)",
    "left\n",
  ],
  "a context that was entered and not left": [
    "import contextlib\n@contextlib.contextmanager\ndef m():\n  try: yield\n  finally: print('left')\nx = m(); x.__enter__()\nNone",
    "left\n",
  ],
  "a generator that was not begun": ["def g():\n  try: yield 1\n  finally: print('finally')\nx = g()", ""],
  "a coroutine that was never awaited": [
    "async def f(): pass\nx = f()",
    "",
    /RuntimeWarning: coroutine 'f' was never awaited/,
  ],
  "a task that still waits": [
    "import asyncio\nasync def f():\n  try: await asyncio.sleep(100)\n  finally: pass\nt = asyncio.ensure_future(f())\nawait asyncio.sleep(0)",
    "",
  ],
  "output wrapped by the program": [
    "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\nprint('wrapped')",
    "wrapped\n",
  ],
  "another file on descriptor 1": ["f = open(1, 'w', closefd=False)\nf.write('held')\nNone", "held"],
  "/dev/stdout": ["f = open('/dev/stdout', 'w')\nf.write('held')\nNone", "held"],
  "logging held in memory": [
    "import logging, logging.handlers, sys\nh = logging.handlers.MemoryHandler(100, target=logging.StreamHandler(sys.stdout))\nlog = logging.getLogger('x'); log.addHandler(h); log.warning('held')",
    "held\n",
  ],
  "a module of the caller's with __del__": [
    "open('finalising.py', 'w').write('class A:\\n  def __' + 'del__(self): print(\"del\")\\n')\nimport finalising\na = finalising.A()",
    "del\n",
  ],
  "a result of a class with __del__": [
    "class A:\n  def __del__(self): print('del')\n  def __repr__(self): return 'A'\nA()",
    "del\n",
  ],
};

describe("the end of a program", () => {
  test.each(Object.entries(ENDS))("%s", async (_, [code, stdout, stderr = ""]) => {
    const reply = await run(`${code}\n`);
    expect(reply.stdout).toBe(stdout);
    if (typeof stderr === "string") expect(reply.stderr).toBe(stderr);
    else expect(reply.stderr).toMatch(stderr);
    // And nothing of it is left.
    expect(await value("[name for name in ('a', 'f', 'x', 'A', 'g', 'm', 'total') if name in globals()]")).toEqual([]);
  });

  test("a handler that does not end is told of alone, not those after it", async () => {
    const reply = await run("import atexit, logging\n@atexit.register\ndef f():\n  while True: pass\n", {
      timeout: 3000,
    });
    expect(reply.stderr).toMatch(/^Exception ignored in atexit callback <function f at 0x[0-9a-f]+>:\n/);
    expect(reply.stderr).not.toMatch(/shutdown|\/lib\/python/);
  });

  test("is within the timeout, and leaves the sandbox usable", async () => {
    for (const code of [
      "import atexit\natexit.register(print, 'bye')\n@atexit.register\ndef forever():\n  while True: pass",
      "class A:\n  def __del__(self):\n    while True: pass\na = A()",
      "def g():\n  try: yield\n  finally:\n    while True: pass\nx = g(); next(x)",
      "import atexit, time\natexit.register(time.sleep, 60)",
    ]) {
      const reply = await run(code, { timeout: 300 });
      expect(reply).toMatchObject({ success: false, errorInfo: { type: "Timeout" } });
      expect(await value("1 + 1")).toBe(2);
    }
  });

  test("does not change the result", async () => {
    expect(await run("import atexit, sys\natexit.register(sys.exit, 3)\n41 + 1")).toMatchObject({
      success: true,
      result: 42,
    });
    expect(await run("import atexit, sys\natexit.register(print)\nsys.exit(3)")).toMatchObject({
      success: false,
      error: "exited with status 3",
      stdout: "\n",
    });
  });

  test("goes out while the code streams", async () => {
    const { body } = await server.post("/api/execute-stream", { code: "import atexit\natexit.register(print, 'bye')" });
    expect(body).toContain('{"type":"stdout","content":"bye');
  });

  test("is no end of a session's, until which nothing of it happens", async () => {
    const session = await newSession();
    const code = "import atexit\natexit.register(print, 'bye')\nclass A:\n  def __del__(self): print('del')\na = A()";
    for (const each of [code, "1"])
      expect(await run(each, { session })).toMatchObject({ error: null, stdout: "", stderr: "" });
    expect((await run("del a", { session })).stdout).toBe("del\n");
  });

  test("comes to a large and deep heap without harm", async () => {
    const code = py`
      x = None
      for i in range(100_000): x = [x]
      y = [[] for _ in range(200_000)]
      class A:
          def __del__(self): print('del')
      a = A()
      f = open('large', 'w'); f.write('x'); None`;
    expect(await run(code)).toMatchObject({ error: null, stdout: "del\n" });
    expect(await value("open('large').read()")).toBe("x");
  });
});

describe("memory that is mapped to files", () => {
  const make = "import mmap\nwith open('m', 'wb') as f: f.write(b'original')\n";
  test.each([
    [
      "closed before its file",
      "f = open('m', 'r+b'); m = mmap.mmap(f.fileno(), 0); m[:3] = b'new'; m.close(); f.close()",
      "newginal",
    ],
    [
      "closed after its file",
      "f = open('m', 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close(); m[:3] = b'new'; m.close()",
      "newginal",
    ],
    [
      "flushed after its file was closed",
      "f = open('m', 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close(); m[:3] = b'new'; m.flush(); m[0:1] = b'N'",
      "Newginal",
    ],
    ["left open", "f = open('m', 'r+b'); m = mmap.mmap(f.fileno(), 0); m[:3] = b'new'", "newginal"],
    ["deleted", "f = open('m', 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close(); m[:3] = b'new'; del m", "newginal"],
    [
      "without a descriptor of its own",
      "f = open('m', 'r+b'); m = mmap.mmap(f.fileno(), 0, trackfd=False); f.close(); m[:3] = b'new'; del m",
      "newginal",
    ],
    [
      "private",
      "f = open('m', 'r+b'); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY); m[:3] = b'new'; m.close()",
      "original",
    ],
    [
      "renamed meanwhile",
      "import os; f = open('m', 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close(); os.rename('m', 'n'); m[:3] = b'new'; m.close(); os.rename('n', 'm')",
      "newginal",
    ],
    [
      "cut meanwhile",
      "f = open('m', 'r+b'); m = mmap.mmap(f.fileno(), 0); m[:3] = b'new'; f.truncate(2); f.close(); m.close()",
      "ne",
    ],
  ])("%s: its own file has what was written", async (_, code, expected) => {
    const others = "\ng = open('other', 'w+b'); g.write(b'another!'); g.flush()\n";
    await value(make + code.replace("f.close(); ", `f.close()${others}`));
    expect(await value("open('m').read()")).toBe(expected);
    if (code.includes("f.close();")) expect(await value("open('other').read()")).toBe("another!");
  });

  test("agrees with the file, and with other mappings of it", async () => {
    const code = py`
      f = open('m', 'r+b', buffering=0)
      a, b = mmap.mmap(f.fileno(), 0), mmap.mmap(f.fileno(), 0)
      a[0:1] = b'A'
      seen = [open('m').read()]
      b[1:2] = b'B'
      seen += [open('m').read(), a[:].decode(), b[:].decode()]
      f.write(b'written!')
      seen += [a[:].decode(), b[:].decode()]
      r = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
      a[7:] = b'?'
      seen += [open('m').read(), r[:].decode()]
      seen`;
    expect(await value(make + code)).toEqual([
      "Ariginal",
      "ABiginal",
      "ABiginal",
      "ABiginal",
      "written!",
      "written!",
      "written?",
      "written?",
    ]);
  });

  test("costs what is read, not what is mapped", async () => {
    const code = py`
      import mmap
      with open("large", "wb") as f: f.write(bytes(20_000_000))
      f = open("large", "r+b", buffering=0)
      m = mmap.mmap(f.fileno(), 0)
      m[10_000_000:10_000_003] = b"abc"
      found = b"".join(f.read(4000).strip(b"\0") for _ in range(5000))
      m.close(); f.close()
      import os; os.remove("large")
      found.decode()`;
    expect(await value(code, { timeout: 20_000 })).toBe("abc");
  });

  test("goes on in a session on another sandbox, also of a deleted file", async () => {
    const session = await newSession();
    const hibernate = async () => {
      // As many at once as there are sandboxes, until it was needed.
      while (server.executor.pool.status().resident > 0) {
        await Promise.all([1, 2].map(() => run("import time; time.sleep(0.05)")));
      }
    };
    await value(
      `${make}import os\nwith open('m', 'r+b') as f: m = mmap.mmap(f.fileno(), 0)\nwith open('d', 'w+b') as f: f.write(b'deleted!'); f.flush(); d = mmap.mmap(f.fileno(), 0, trackfd=False)\nos.remove('d'); m[0:1] = b'1'; d[0:1] = b'1'\nNone`,
      { session },
    );
    await hibernate();
    expect((await server.get(`/api/sessions/${session}/files/m`)).body).toBe("1riginal");
    expect(await value("m[1:2] = b'2'; d[1:2] = b'2'; [open('m').read(), d[:].decode()]", { session })).toEqual([
      "12iginal",
      "12leted!",
    ]);
    await hibernate();
    expect(
      await value("m[2:3] = b'3'; m.flush(); m.close(); d.close(); [open('m').read(), os.path.exists('d')]", {
        session,
      }),
    ).toEqual(["123ginal", false]);
  });
});

describe.skipIf(TEST_WHEELS === "")("numpy.memmap", () => {
  let numpy: TestServer;
  beforeAll(async () => {
    numpy = await startTestServer({ PYODIDE_PACKAGES: "numpy", PACKAGE_DIR: TEST_WHEELS });
  });
  afterAll(async () => await numpy?.stop(0));
  const W = "import numpy as np\nm = np.memmap('A.dat', dtype='u1', mode='w+', shape=(8,))\nm[:] = 65\n";
  test.each([
    ["flushed", "m.flush()\nopen('A.dat', 'rb').read().decode()", "AAAAAAAA"],
    ["deleted", "del m\nnp.fromfile('A.dat', dtype='u1').tolist()", [65, 65, 65, 65, 65, 65, 65, 65]],
    [
      "deleted with another file on its descriptor",
      "g = open('B.dat', 'w+b')\ng.write(b'original')\ng.flush()\ndel m\n[open(n, 'rb').read().decode() for n in ('A.dat', 'B.dat')]",
      ["AAAAAAAA", "original"],
    ],
    ["read while it is open", "open('A.dat', 'rb').read().decode()", "AAAAAAAA"],
    [
      "opened again to be read and written",
      "del m\nm = np.memmap('A.dat', dtype='u1', mode='r+'); m[0] = 66; m.flush(); r = np.memmap('A.dat', dtype='u1', mode='r'); [int(r[0]), len(r)]",
      [66, 8],
    ],
    [
      "np.save and np.load mapped",
      "np.save('s.npy', np.arange(4)); s = np.load('s.npy', mmap_mode='r+'); s[0] = 9; del s; np.load('s.npy').tolist()",
      [9, 1, 2, 3],
    ],
  ])("%s", async (_, code, expected) => {
    const { body } = await numpy.post("/api/execute", { code: W + code });
    expect(body).toMatchObject({ error: null, stderr: "", result: expected });
  });

  test("left open at the end: its file has it", async () => {
    await numpy.post("/api/execute", { code: `${W}None` });
    const { body } = await numpy.post("/api/execute", { code: "open('A.dat').read()" });
    expect(body.result).toBe("AAAAAAAA");
  });
});
