import { each, type Technique } from "../attack.ts";

/** Run by another principal: whatever it prints of `won` came from the attacker, or from its own variables, which it must not print. */
export const LOOK = `import sys, os, json, random, builtins, gc, asyncio, time, math, string, re, atexit
mine = won
del won
`;

/** What an attacker changes, and how its victim would notice. */
export const POISON: readonly [change: string, notice: string][] = [
  [
    "import builtins\nbuiltins.len = lambda x: -1\nbuiltins.stolen = 1",
    "if len('a') != 1 or hasattr(builtins, 'stolen'): print(mine)",
  ],
  ["import sys\nsys.modules['json'] = None", "import json\nif json is None: print(mine)"],
  ["import json\njson.dumps.__code__ = (lambda *a, **k: 'x').__code__", "if json.dumps(1) != '1': print(mine)"],
  ["import sandbox_runner.convert as c\nc.to_json_data.__code__ = (lambda value: ('x', False)).__code__", "5"],
  [
    "import sandbox_runner.execution as e\ne._evaluate = lambda code, *rest: (['stolen: ' + code], 1)",
    "if '_evaluate' not in str(__import__('sandbox_runner.execution').execution._evaluate): print(mine)",
  ],
  [
    "import sys\nclass F:\n  def find_spec(*a): print('hook')\nsys.meta_path.insert(0, F())",
    "if len([f for f in sys.meta_path if type(f).__name__ == 'F']): print(mine)",
  ],
  [
    "import sys\nsys.path_hooks.insert(0, print); sys.path_importer_cache.clear()",
    "if print in sys.path_hooks: print(mine)",
  ],
  [
    "import sys\nsys.path.insert(0, '/tmp')\nopen('/tmp/antigravity.py', 'w').write('stolen = 1')",
    "import importlib.util\nif '/tmp' in sys.path or os.path.exists('/tmp/antigravity.py'): print(mine)",
  ],
  ["import sys\nsys.stdout.write = lambda x: None\nsys.stdout = sys.stderr = None", "print('alive')"],
  [
    "import sys\nsys.settrace(lambda *a: print('traced'))\nsys.setprofile(lambda *a: None)",
    "if sys.gettrace() or sys.getprofile(): print(mine)",
  ],
  [
    "import threading\nthreading.settrace(print); threading.setprofile(print)",
    "import threading\nif threading.gettrace(): print(mine)",
  ],
  [
    "import gc\ngc.callbacks.append(lambda *a: print('gc')); gc.disable(); gc.freeze()",
    "if gc.callbacks or not gc.isenabled(): print(mine)",
  ],
  // What is registered runs at the end of its own program, and is of no other.
  [
    "import atexit, builtins\nfor _ in range(9): atexit.register(setattr, builtins, 'stolen', won)",
    "import builtins\nif atexit._ncallbacks() > 5 or hasattr(builtins, 'stolen'): print(mine)",
  ],
  [
    "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)",
    "import signal\nif signal.getsignal(signal.SIGINT) == signal.SIG_IGN: print(mine)",
  ],
  [
    "import os\nos.environ['STOLEN'] = won; os.putenv('STOLEN', won); os.chdir('/tmp'); os.umask(0)",
    "if 'STOLEN' in os.environ or os.getcwd() == '/tmp': print(mine)",
  ],
  ["import os\nfor _ in range(50): os.dup(1)\nos.dup2(1, 0); os.close(2)", "os.write(2, b'')"],
  ["import os\nos.close(4000); os.close(1); os.dup2(0, 4000)", "time.sleep(0); print('alive')"],
  ["import time\ntime.sleep = lambda s: print(won)", "time.sleep(0)"],
  ["import random\nrandom.seed(1)\nrandom.random = lambda: 4", "if random.random() == 4: print(mine)"],
  ["import os\nos.urandom = lambda n: bytes(n)\nimport secrets", "if not any(os.urandom(8)): print(mine)"],
  [
    "import asyncio\nasync def f():\n  while True:\n    await asyncio.sleep(0); print(won)\nt = asyncio.get_event_loop().create_task(f())",
    "await asyncio.sleep(0.1)",
  ],
  [
    "import asyncio\nasyncio.get_event_loop().call_later(0, print, won)\nasyncio.get_event_loop().call_soon(print, won)\n1",
    "await asyncio.sleep(0.05)",
  ],
  ["import asyncio\nasyncio.get_event_loop().close()\nasyncio.set_event_loop(None)", "await asyncio.sleep(0)"],
  ["import asyncio\nasyncio.sleep = asyncio.run = None", "await asyncio.sleep(0)"],
  [
    "import re\nre.compile('secret'); re._cache['x'] = 5\nre.match = lambda *a: 5",
    "if re.match('a', 'b') == 5: print(mine)",
  ],
  [
    "import codecs\ncodecs.register(lambda n: print('codec', n))\ncodecs.register_error('strict', print)",
    "try: b'\\xff'.decode()\nexcept UnicodeDecodeError: pass\nelse: print(mine)",
  ],
  [
    "import decimal, locale, warnings\ndecimal.getcontext().prec = 1\nwarnings.simplefilter('error')",
    "import decimal\nif decimal.getcontext().prec == 1: print(mine)",
  ],
  ["import sys\nsys.setrecursionlimit(60)", "def f(n): return n and f(n - 1)\nf(100)"],
  [
    "import sys\nsys.excepthook = sys.displayhook = sys.unraisablehook = sys.breakpointhook = print",
    "if sys.excepthook is print: print(mine)",
  ],
  ["import sys\nsys.set_int_max_str_digits(640); sys.setswitchinterval(1); sys.flags", "int('1' * 4000)"],
  [
    "import ctypes, gc\ngc.get_referents(int.__dict__)[0]['stolen'] = lambda self: 1\nctypes.pythonapi.PyType_Modified(ctypes.py_object(int))",
    "if hasattr(5, 'stolen'): print(mine)",
  ],
  [
    "import gc\ngc.get_referents(str.__dict__)[0]['swapcase'] = lambda self: 'X'",
    "if 'a'.swapcase() != 'A': print(mine)",
  ],
  ["import ctypes\nctypes.c_int.from_address(id(257 - 1) + 16).value = 3", "if [256][0] != 200 + 56: print(mine)"],
  [
    "import ctypes\ns = 'upper'\nctypes.memmove(id(s) + ctypes.sizeof(ctypes.c_void_p) * 5, b'Xpper', 5)",
    "'a'.upper()",
  ],
  ["import ctypes\nctypes.c_size_t.from_address(id(None)).value = 1", "x = [None] * 10; del x; None"],
  [
    "import linecache\nlinecache.cache['<exec>'] = (1, None, [won], '<exec>')",
    "try: 1 / 0\nexcept ZeroDivisionError as e:\n  import traceback; traceback.print_exc()",
  ],
  [
    "import __main__\n__main__.stolen = won\n__main__.__dict__['__builtins__'] = {}",
    "if 'stolen' in globals(): print(mine)",
  ],
  [
    "secret_of_mine = won * 1000\nkeep = [secret_of_mine + str(i) for i in range(1000)]",
    "for x in gc.get_objects():\n  if isinstance(x, str) and mine * 2 in x: print(x[:100])",
  ],
  [
    "big = (won * 3).encode() * 100000",
    "import ctypes\ndata = ctypes.string_at(4096, 40 << 20)\nif data.count(mine.encode() * 3): print(mine)",
  ],
  [
    "buffer = bytearray((won * 3).encode() * 100000)\ndel buffer",
    "x = ctypes = __import__('ctypes').create_string_buffer(30 << 20)\nb = bytearray(30 << 20)\nimport ctypes as c\np = c.CDLL(None).malloc(20 << 20)\nif c.string_at(p, 20 << 20).find(mine[:20].encode()) >= 0: print(mine)",
  ],
  [
    "open('/tmp/left', 'w').write(won)\nopen('/home/pyodide/left', 'w').write(won)\nopen('/plots/left', 'w').write(won)",
    "for f in ('/tmp', '/home/pyodide', '/plots'):\n  if 'left' in os.listdir(f): print(mine)",
  ],
  [
    "f = open('/tmp/open', 'w'); f.write(won); f.flush()\nimport os\nr, w = os.pipe(); os.write(w, won.encode())",
    "for fd in range(3, 100):\n  try: print(os.pread(fd, 100, 0), os.read(fd, 100))\n  except OSError: pass",
  ],
  [
    "os = __import__('os')\nos.makedirs('/etc/left')\nopen('/etc/left/x', 'w').write(won)\nopen('/left', 'w').write(won)",
    "if os.path.exists('/etc/left') or os.path.exists('/left'): print(mine)",
  ],
  [
    "import tempfile\ntempfile.tempdir = '/home/pyodide'\ntempfile.NamedTemporaryFile(delete=False).write(won.encode())",
    "import tempfile\nif tempfile.gettempdir() != '/tmp': print(mine)",
  ],
];

const DISK = [
  "/lib/python314.zip",
  "/lib/python314.zip/json/__init__.py",
  "/lib/python314.zip/__pycache__/os.cpython-314.pyc",
  "/lib/python314.zip/sitecustomize.py",
  "/lib/python3.14/json/__init__.py",
  "/lib/python3.14/site-packages/sitecustomize.py",
  "/lib/python3.14/__pycache__/os.cpython-314.pyc",
  "/lib/importlib_bootstrap/sandbox_runner/execution.py",
  "/lib/importlib_bootstrap/sandbox_runner/__pycache__/execution.cpython-314.pyc",
  "/lib/environment/site-packages/evil.pth",
  "/lib/packages/site-packages/json.py",
  "/dev/stdout",
];

export const NEIGHBOURS: Technique = {
  title: "the next execution",
  controls: [["rewind", "file-reset", "state-check", "read-only-files"], ["kill"]],
  attacks: [
    ...POISON.map(([change, notice]) => ({
      name: change.replaceAll("\n", "; ").slice(0, 110),
      code: change,
      next: LOOK + notice,
    })),
    ...DISK.map((path) => ({
      name: `poison ${path}`,
      code: `import os, sys
target = ${JSON.stringify(path)}
for change in (lambda: open(target, "r+b").write(b"x"), lambda: open(target, "wb").write(b"print(1)"), lambda: os.chmod(target, 0o777),
    lambda: os.chmod(os.path.dirname(target), 0o777), lambda: os.remove(target), lambda: os.rename(target, "/tmp/x"), lambda: os.truncate(target, 0),
    lambda: os.symlink("/tmp", target), lambda: os.utime(target, (0, 0)), lambda: os.makedirs(os.path.dirname(target) + "/new")):
  try: change()
  except OSError: continue
  if target != "/dev/stdout": print(won)`,
      next: "import json, os, sys\njson.dumps([1])",
    })),
    {
      name: "a module in the caller's own workspace does not reach another's",
      workspace: true,
      code: "for name in ('json', 'sitecustomize', 'usercustomize', 'antigravity'): open(f'/home/pyodide/{name}.py', 'w').write('print(\"' + won + '\")')",
      next: "import os, sys\nsys.path.insert(0, '/home/pyodide')\nprint(os.listdir('/home/pyodide'))\nimport antigravity_ if False else json\n".replace(
        "import antigravity_ if False else json",
        "import json, importlib\nimportlib.reload(json)",
      ),
    },
    ...each(
      [
        "class D:\n  def __del__(self):\n    while True: print(won)\nkeep = D()\nwhile True: pass",
        "import atexit\natexit.register(lambda: print(won))\nwhile True: pass",
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
        "import time\ntry: time.sleep(60)\nfinally:\n  while True: pass",
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "import asyncio\nasync def f():\n  while True:\n    try: await asyncio.sleep(0.01)\n    except BaseException: pass\nasyncio.get_event_loop().create_task(f())\nawait f()",
        "sum(range(10 ** 12))",
        "import re\nre.match('(a+)+$', 'a' * 64 + 'b')",
        "x = 7 ** (10 ** 9)",
        "def g():\n  try:\n    yield\n  finally:\n    while True: pass\nit = g(); next(it)\nwhile True: pass",
        "import weakref\nclass A: pass\na = A(); weakref.finalize(a, print, won)\nwhile True: pass",
      ],
      { timeoutMs: 300, next: "import time\ntime.sleep(0.05)", proof: "reply" },
    ),
  ],
};
