import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { py, startTestEngine, type TestEngine } from "../support/engine.ts";
import { gives, prints, type Row, raises, table as rowsTable, text } from "../support/table.ts";

/** What the sandbox does not have: the sentence that says so, and what does instead. */

let tested: TestEngine;
beforeAll(async () => {
  tested = await startTestEngine({ POOL_SIZE: "1" });
});
afterAll(() => tested.stop());
const table = (title: string, rows: readonly Row[]) => rowsTable(title, () => tested, rows);

table("pools of threads run their tasks one after another", [
  {
    name: "in order, with results and exceptions",
    code: py`
      from concurrent.futures import ThreadPoolExecutor, as_completed, wait
      log = []
      def f(x):
        log.append(x)
        if x == 3: raise ValueError(x)
        return x * x
      with ThreadPoolExecutor(max_workers=4) as pool:
        futures = {pool.submit(f, i): i for i in range(6)}
        order = [futures[future] for future in as_completed(futures)]
        backwards = [futures[future] for future in as_completed(reversed(list(futures)))]
      results = [repr(future.exception() or future.result()) for future in futures]
      done, not_done = wait(futures)
      log, order, backwards, results, len(done), len(not_done)`,
    want: gives([
      [0, 1, 2, 3, 4, 5],
      [0, 1, 2, 3, 4, 5],
      [0, 1, 2, 3, 4, 5],
      ["0", "1", "4", "ValueError(3)", "16", "25"],
      6,
      0,
    ]),
  },
  {
    name: "map, callbacks, tasks within tasks",
    code: py`
      from concurrent.futures import ThreadPoolExecutor
      seen = []
      pool = ThreadPoolExecutor()
      pool.submit(abs, -1).add_done_callback(lambda future: seen.append(future.result()))
      inner = pool.submit(lambda: pool.submit(abs, -2).result()).result()
      seen, inner, list(pool.map(pow, (2, 3), (3, 2)))`,
    want: gives([[1], 2, [8, 9]]),
  },
  {
    name: "map raises where its result is asked for",
    code: "from concurrent.futures import ThreadPoolExecutor\nr = ThreadPoolExecutor().map(int, ['1', 'x'])\nnext(r)\nnext(r)",
    want: raises("ValueError", text(/'x'/)),
  },
  {
    name: "an initializer",
    code: "from concurrent.futures import ThreadPoolExecutor\ns = []\np = ThreadPoolExecutor(initializer=s.append, initargs=(1,))\np.submit(int)\np.submit(int)\ns",
    want: gives([1]),
  },
  {
    name: "an initializer that fails",
    code: "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor(initializer=int, initargs=('x',)).submit(int).result()",
    want: raises("BrokenThreadPool"),
  },
  {
    name: "one that is shut down",
    code: "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as p: pass\np.submit(int)",
    want: raises("RuntimeError", "cannot schedule new futures after shutdown"),
  },
  {
    name: "no workers",
    code: "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor(0)",
    want: raises("ValueError"),
  },
  {
    name: "an exit in a task is its result's",
    code: "import concurrent.futures as c\nf = c.ThreadPoolExecutor().submit(exit)\ntype(f.exception()).__name__",
    want: gives("SystemExit"),
  },
  {
    name: "in asyncio",
    code: py`
      import asyncio
      from concurrent.futures import ThreadPoolExecutor
      loop = asyncio.get_event_loop()
      with ThreadPoolExecutor() as pool:
        values = await asyncio.gather(*(loop.run_in_executor(pool, abs, -i) for i in range(3)))
        values.append(await asyncio.wrap_future(pool.submit(abs, -9)))
      values`,
    want: gives([0, 1, 2, 9]),
  },
  {
    name: "multiprocessing.pool.ThreadPool",
    code: py`
      from multiprocessing.pool import ThreadPool
      seen = []
      with ThreadPool(3) as pool:
        values = [
          pool.map(abs, range(-4, 0)), pool.apply(max, (1, 2)), list(pool.imap(str, range(3))),
          list(pool.imap_unordered(str, range(3))), pool.starmap(pow, [(2, 3), (3, 2)]),
          pool.map_async(abs, [-1], callback=seen.append).get(), pool.apply_async(abs, (-5,)).get(timeout=1),
        ]
        failed = pool.apply_async(int, ("x",), error_callback=lambda error: seen.append(str(error)[:7]))
        failed.wait()
        values.append([failed.ready(), failed.successful()])
      values, seen`,
    want: gives([
      [[4, 3, 2, 1], 2, ["0", "1", "2"], ["0", "1", "2"], [8, 9], [1], 5, [true, false]],
      [[1], "invalid"],
    ]),
  },
  {
    name: "multiprocessing.dummy.Pool, closed and joined",
    code: "from multiprocessing.dummy import Pool\np = Pool()\nr = p.map(abs, [-2])\np.close()\np.join()\nr",
    want: gives([2]),
  },
  {
    name: "a pool that is closed",
    code: "from multiprocessing.pool import ThreadPool\np = ThreadPool()\np.close()\np.map(abs, [1])",
    want: raises("ValueError", "Pool not running"),
  },
  {
    name: "map raises what a task raises",
    code: "from multiprocessing.pool import ThreadPool\nThreadPool(2).map(int, ['x'])",
    want: raises("ValueError", text(/'x'/)),
  },
  {
    name: "an initializer of it",
    code: "from multiprocessing.pool import ThreadPool\ns = []\nThreadPool(1, s.append, (1,))\ns",
    want: gives([1]),
  },
]);

test("a timeout ends a task in a pool, and the pool's code with it", async () => {
  const code =
    "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as p:\n  p.submit(lambda: [0 for _ in iter(int, 1)])";
  expect(await tested.run(code, { timeoutMs: 500 })).toMatchObject({ errorInfo: { type: "Timeout" } });
});

const oneProcess = /the sandbox has one process, and no others can be started; /;
table("processes and threads", [
  {
    name: "Thread",
    code: "import threading\nthreading.Thread(target=print).start()",
    want: raises("RuntimeError", text(/^can't start new thread: .*call the function itself.*ThreadPoolExecutor/)),
  },
  {
    name: "Timer",
    code: "import threading\nthreading.Timer(0, print).start()",
    want: raises("RuntimeError", text(/ThreadPoolExecutor/)),
  },
  {
    name: "_thread",
    code: "import _thread\n_thread.start_new_thread(print, ())",
    want: raises("RuntimeError", text(/ThreadPoolExecutor/)),
  },
  ...[
    "Pool(2)",
    "Process(target=print).start()",
    "Queue()",
    "Lock()",
    "Manager()",
    "Value('i', 0)",
    "Array('i', 3)",
    "Event()",
    "Pipe()",
    "get_context('spawn').Pool()",
  ].map((call) => ({
    name: `multiprocessing.${call}`,
    code: `import multiprocessing\nmultiprocessing.${call}`,
    want: { ...raises("ImportError", text(oneProcess)), stderr: expect.not.stringContaining("ignored") },
  })),
  {
    name: "ProcessPoolExecutor",
    code: "from concurrent.futures import ThreadPoolExecutor, ProcessPoolExecutor\nProcessPoolExecutor()",
    want: raises("NotImplementedError", text(oneProcess)),
  },
  {
    name: "InterpreterPoolExecutor",
    code: "from concurrent.futures import InterpreterPoolExecutor",
    want: raises("ImportError", text(/one process/)),
  },
  {
    name: "shared memory",
    code: "from multiprocessing.shared_memory import SharedMemory\nSharedMemory(create=True, size=1)",
    want: raises("ModuleNotFoundError", text(/one process/)),
  },
  ...(
    [
      ["subprocess.run(['ls', '-l'])", /cannot run 'ls -l': .*write it in Python/],
      ["subprocess.check_output('id | wc', shell=True)", /cannot run 'id \| wc'/],
      ["subprocess.Popen([sys.executable, 'a.py'])", /cannot run 'python a.py': .*runpy.run_path/],
      ["subprocess.check_call([sys.executable, '-m', 'pip', 'install', '-q', 'six'])", /micropip.install\(\['six'\]\)/],
      ["subprocess.call('pip install six', shell=True)", /micropip.install\(\['six'\]\)/],
      ["subprocess.getoutput('ls')", /cannot run 'ls'/],
      ["subprocess.run(b'ls')", /cannot run 'ls'/],
      ["subprocess.run([])", /cannot run ''/],
    ] as const
  ).map(([call, message]) => ({
    name: call,
    code: `import subprocess, sys\n${call}`,
    want: raises("OSError", text(message)),
  })),
  ...["create_subprocess_exec('ls', '-l')", "create_subprocess_shell('ls -l')"].map((call) => ({
    name: `asyncio.${call}`,
    code: `import asyncio\nawait asyncio.${call}`,
    want: raises("NotImplementedError", text(/cannot run 'ls -l': .*write it in Python/)),
  })),
  {
    name: "os.system",
    code: "import os\nos.system('ls')",
    want: raises("PermissionError", text(/os.system is not permitted.*no other programs; write it in Python/)),
  },
]);

table("JavaScript and the network", [
  ...["from js import document", "import js\njs.document", "import js\njs.fetch('/')"].map((code) => ({
    name: code,
    code,
    want: { success: false, error: text(/no access to JavaScript; show HTML with display/) },
  })),
  { name: "hasattr(js, …)", code: "import js\nhasattr(js, 'document')", want: gives(false) },
  {
    name: "run_js",
    code: "from pyodide.code import run_js\nrun_js('1')",
    want: raises("PermissionError", text(/no access to JavaScript/)),
  },
  ...["to_js([1])", "create_proxy(print)"].map((call) => ({
    name: `pyodide.ffi.${call}`,
    code: `import pyodide.ffi\npyodide.ffi.${call}`,
    want: raises("PermissionError", text(/no access to JavaScript/)),
  })),
  {
    name: "a socket",
    code: "import socket\nsocket.socket()",
    want: raises("PermissionError", text(/no sockets; use urllib.request, requests or httpx/)),
  },
  ...[
    "socket.create_connection(('example.org', 80))",
    "socket.getaddrinfo('example.org', 80)",
    "socket.gethostbyname('example.org')",
    "__import__('smtplib').SMTP('example.org')",
    "__import__('ftplib').FTP('example.org')",
  ].map((call) => ({
    name: call,
    code: `import socket\n${call}`,
    want: raises("gaierror", text(/looks no names up; use urllib.request/)),
  })),
  {
    name: "a server",
    code: "import http.server\nhttp.server.HTTPServer(('', 8000), None)",
    want: raises("PermissionError", text(/no sockets/)),
  },
  {
    name: "webbrowser",
    code: "import webbrowser\nprint(webbrowser.open('https://example.com'), webbrowser.open_new_tab('a'))",
    want: { success: true, stdout: "False False\n", stderr: text(/the sandbox has no browser; print the address/) },
  },
  { name: "antigravity", code: "import antigravity", want: { success: true, stderr: text(/no browser/) } },
]);

describe("names that are not there", () => {
  const rows: [string, RegExp][] = [
    ["time.tzset", /UTC.*zoneinfo/],
    ["signal.alarm", /deliver the signal/],
    ["signal.setitimer", /deliver the signal/],
    ["hashlib.scrypt", /OpenSSL.*pbkdf2_hmac/],
    ["os.link", /hard links.*symlink/],
    ["os.mkfifo", /pipe/],
    ["os.nice", /one process/],
    ["os.sched_getaffinity", /cpu_count/],
    ["os.openpty", /terminal/],
    ["os.getxattr", /extended attributes/],
    ["os.startfile", /Windows/],
  ];
  test.each(rows)("%s", async (name, sentence) => {
    const [module, attribute] = name.split(".");
    for (const code of [`import ${module}\n${name}()`, `from ${module} import ${attribute}`]) {
      expect(await tested.run(code)).toMatchObject({ success: false, error: text(sentence), stderr: text(sentence) });
    }
    expect(await tested.run(`import ${module}\nhasattr(${module}, "${attribute}")`)).toMatchObject(gives(false));
  });

  test("every module of Python's own that cannot be imported says why", async () => {
    const names = py`
      import sys
      from importlib.util import find_spec
      [name for name in sorted(sys.stdlib_module_names) if name not in ("__main__",) and find_spec(name) is None]`;
    const missing = (await tested.run(names)).result as string[];
    expect(missing).toContain("tkinter");
    for (const name of [...missing, "turtle", "imp", "distutils", "cgi", "telnetlib", "audioop"]) {
      const { error } = await tested.run(`import ${name}`);
      expect(error, name).toMatch(new RegExp(`^No module named '${name}': \\w.{20}`));
    }
  });

  test("what needs such a module says it, too", async () => {
    expect(await tested.run("import shelve\nshelve.open('x')")).toMatchObject(
      raises("ModuleNotFoundError", text(/shelve needs; use sqlite3/)),
    );
    expect(await tested.run("import getpass, sys\nimport curses.ascii")).toMatchObject(
      raises("ModuleNotFoundError", text(/no terminal/)),
    );
  });

  test("code that catches the error finds Python's own message", async () => {
    const code =
      "try: import tkinter\nexcept ImportError as e: print(e)\nimport time\ntry: time.tzset()\nexcept AttributeError as e: print(e)";
    expect(await tested.run(code)).toMatchObject(
      prints("No module named 'tkinter'\nmodule 'time' has no attribute 'tzset'\n"),
    );
  });

  test("an object's own names are not explained", async () => {
    expect(await tested.run("class os: pass\nos.link")).toMatchObject(raises("AttributeError", text(/'link'$/)));
    expect(await tested.run("raise ModuleNotFoundError('mine', name='tkinter')")).toMatchObject(
      raises("ModuleNotFoundError", "mine"),
    );
    expect(await tested.run("raise ImportError(5, name=7)")).toMatchObject({ success: false });
  });
});

table("done instead", [
  {
    name: "hashlib.pbkdf2_hmac",
    code: "import hashlib\nh = hashlib.pbkdf2_hmac\nh('sha256', b'password', b'salt', 2).hex(), h('sha1', b'p' * 100, b's', 3, 25).hex()",
    // Of OpenSSL's.
    want: gives([
      "ae4d0c95af6b46d32d0adff928f06dd02a303f8ef3c251dfd6e2d85a95474c43",
      "7a40a0bcecb1e9d995e150029f52f9064e17f220ba2f6ec2ec",
    ]),
  },
  {
    name: "time.process_time",
    code: "import time\nt = time.process_time()\ntime.sleep(0.2)\n0 <= t < 10, time.process_time() - t < 0.15",
    want: gives([true, true]),
  },
]);
