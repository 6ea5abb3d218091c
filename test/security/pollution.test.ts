import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { py, startTestEngine, type TestEngine } from "../support/engine.ts";

/**
 * Looks at everything that an earlier execution might have left behind, down to the address of the next object: where the
 * memory is the baseline's byte for byte, so is every allocation. Must not depend on time or chance.
 */
const PROBE = py`
  def look():
      import abc, asyncio, atexit, builtins, codecs, collections, contextvars, copyreg, ctypes, decimal, enum, faulthandler, fcntl, functools, gc
      import importlib, io, json, linecache, locale, logging, math, mimetypes, os, pathlib, random, re, select, shutil, signal, socket, stat
      import statistics, string, struct, subprocess, sys, tempfile, threading, time, tracemalloc, types, typing, unicodedata, unittest, uuid
      import warnings, weakref, zoneinfo, datetime, copy, operator, pickle, csv, textwrap, queue, sandbox_runner.execution, sandbox_runner.display

      def listing(path):
          found = []
          for folder, folders, files in os.walk(path):
              folders.sort()
              for name in sorted(folders + files):
                  s = os.lstat(f"{folder}/{name}")
                  found.append((f"{folder}/{name}", s.st_mode, s.st_ino, s.st_size))
          return found

      def attempt(what):
          try:
              return what()
          except BaseException as error:
              return f"{type(error).__name__}: {error}"

      def attributes(thing):
          return {name: repr(value) for name, value in sorted(vars(thing).items()) if name not in ("__dict__", "__weakref__")}

      probes = {
          "next address": lambda: (id([]), id(object()), id({}), id("".join(["a", "b"])), id(bytearray(10**6))),
          "allocated blocks": lambda: sys.getallocatedblocks(),
          "builtins": lambda: attributes(builtins),
          "modules": lambda: {name: repr(module) for name, module in sorted(sys.modules.items())},
          "functions of modules": lambda: {m.__name__: attributes(m) for m in (json, os, time, math, re, random, io, sys, asyncio, threading, signal, socket, builtins, pathlib, tempfile, subprocess, copyreg, sandbox_runner.execution, sandbox_runner.display)},
          "classes": lambda: {c.__qualname__: attributes(c) for c in (pathlib.PurePath, pathlib.Path, json.JSONEncoder, dict, int, str, list, object, type, collections.OrderedDict, decimal.Decimal, datetime.datetime, enum.Enum, asyncio.Task, threading.Thread, Exception, io.TextIOWrapper)},
          "functions work": lambda: (json.dumps({"a": 1}), math.sqrt(9), re.sub("a", "b", "aa"), statistics.mean([1, 2]), str(pathlib.Path("a") / "b"), len([1]), abs(-1), sorted([2, 1]), copy.copy([1]), pickle.loads(pickle.dumps({1})), struct.pack("i", 1), textwrap.fill("a b"), uuid.UUID(int=1).hex, operator.add(1, 2)),
          "subclasses": lambda: sorted((c.__module__, c.__qualname__) for base in (object, Exception, BaseException, int, str, dict, list, threading.Thread, logging.Handler, json.JSONEncoder, codecs.Codec) for c in type.__subclasses__(base)),
          "sys": lambda: (sys.path, sys.meta_path and [repr(f) for f in sys.meta_path], [repr(h) for h in sys.path_hooks], sorted(sys.path_importer_cache), sys.argv, sys.flags, sys.getrecursionlimit(), sys.getswitchinterval(), sys.get_int_max_str_digits(), sys.dont_write_bytecode, repr(sys.displayhook), repr(sys.excepthook), repr(sys.unraisablehook), repr(sys.breakpointhook), sys.ps1 if hasattr(sys, "ps1") else None, hasattr(sys, "last_exc"), sys.tracebacklimit if hasattr(sys, "tracebacklimit") else None, sorted(name for name in vars(sys))),
          "hooks": lambda: (sys.gettrace(), sys.getprofile(), [sys.monitoring.get_tool(i) for i in range(6)], [sys.monitoring.get_events(i) if sys.monitoring.get_tool(i) else 0 for i in range(6)], threading.gettrace(), threading.getprofile(), sys.get_asyncgen_hooks(), sys.get_coroutine_origin_tracking_depth()),
          "audit hooks": lambda: (sys.audit("pollution.probe"), globals().get("audited")),
          "globals": lambda: sorted(globals()),
          "main": lambda: sorted(vars(sys.modules["__main__"])),
          "environment": lambda: (sorted(os.environ.items()), os.getcwd(), os.umask(0), os.umask(0), time.tzname, time.timezone),
          "locale": lambda: (locale.setlocale(locale.LC_ALL), locale.localeconv(), locale.getpreferredencoding()),
          "warnings": lambda: (warnings.filters, repr(warnings.showwarning), getattr(sys.modules["__main__"], "__warningregistry__", None)),
          "decimal": lambda: (repr(decimal.getcontext()), repr(decimal.DefaultContext)),
          "random": lambda: (repr(random.random), type(random._inst).__name__, random._inst.gauss_next, hash("a"), hash(1.5)),
          "atexit": lambda: atexit._ncallbacks(),
          "gc": lambda: (gc.isenabled(), gc.get_threshold(), gc.get_debug(), len(gc.callbacks), gc.get_freeze_count(), gc.get_count(), len(gc.garbage), gc.get_stats()),
          "threads": lambda: (threading.active_count(), threading.current_thread().name, threading.stack_size(), [t.name for t in threading.enumerate()], threading.get_ident(), threading.excepthook.__name__),
          "codecs": lambda: (attempt(lambda: codecs.lookup("polluted")), attempt(lambda: codecs.lookup_error("polluted")), codecs.lookup("utf-8").name, "é".encode(), b"\xff".decode(errors="replace")),
          "copyreg": lambda: (len(copyreg.dispatch_table), copyreg._extension_registry),
          "logging": lambda: ([repr(h) for h in logging.root.handlers], logging.root.level, logging.root.manager.disable, sorted(logging.root.manager.loggerDict), logging.getLevelName(5), repr(logging.getLoggerClass()), logging.raiseExceptions, len(logging._handlers)),
          "signals": lambda: {s.name: repr(signal.getsignal(s)) for s in signal.valid_signals() if isinstance(s, signal.Signals)},
          "contextvars": lambda: [(v.name, repr(x)) for v, x in contextvars.copy_context().items() if v.name != "decimal_context"],
          "asyncio": lambda: (attempt(lambda: asyncio.get_event_loop().is_closed()), attempt(lambda: repr(type(asyncio.get_event_loop()))), attempt(lambda: len(asyncio.all_tasks(asyncio.get_event_loop()))), attempt(asyncio.get_running_loop), repr(asyncio.run), attempt(lambda: len(asyncio.get_event_loop()._ready)), attempt(lambda: len(asyncio.get_event_loop()._scheduled)), attempt(lambda: asyncio.get_event_loop().get_debug())),
          "standard streams": lambda: [(f is g, f.closed, f.encoding, f.errors, f.fileno(), f.line_buffering, f.write_through, f.newlines, type(f).__name__, type(f.buffer).__name__, f.name) for f, g in ((sys.stdin, sys.__stdin__), (sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__))],
          "descriptors": lambda: ([(fd, attempt(lambda: (os.fstat(fd).st_mode, os.fstat(fd).st_ino, os.readlink(f"/proc/self/fd/{fd}"), fcntl.fcntl(fd, fcntl.F_GETFL), attempt(lambda: os.lseek(fd, 0, 1)))) ) for fd in (*range(20), 3999, 4000, 4001)], os.listdir("/proc/self/fd")),
          "next descriptors": lambda: (os.dup(1), os.pipe(), [os.fstat(fd).st_ino for fd in os.pipe()], [os.readlink(f"/proc/self/fd/{fd}") for fd in os.pipe()]),
          "files": lambda: [listing(p) for p in ("/home", "/tmp", "/plots", "/lib", "/dev", "/etc", "/usr", "/var")] + [sorted(os.listdir("/"))],
          "names that others gave": lambda: [p for p in ("a", "a/secret", "b", "b/c", "y", "q", "l", "x/y/z", "e1", "/tmp/went", "/tmp/went/in", "/tmp/moved", "/tmp/gone", "/tmp/x", "/tmp/polluted", "/plots/polluted") if os.path.lexists(p) or os.access(p, os.F_OK)],
          "times of files": lambda: [(p, os.stat(p).st_mtime, os.stat(p).st_atime) for p in ("/dev/null", "/dev/random", "/dev/urandom", "/dev/tty", "/lib/importlib_bootstrap/sandbox_runner/execution.py", "/lib")],
          "sources": lambda: [open(f"/lib/importlib_bootstrap/sandbox_runner/{name}").read() for name in sorted(os.listdir("/lib/importlib_bootstrap/sandbox_runner"))],
          "a module from the archive": lambda: (importlib.import_module("colorsys").__doc__, importlib.import_module("this").__file__ if False else None, sorted(vars(importlib.import_module("sched")))),
          "names of hosts": lambda: (attempt(lambda: socket.gethostbyname("a.example")), attempt(lambda: socket.gethostbyname("b.example")), attempt(lambda: socket.getprotobyname("tcp")), attempt(lambda: socket.getservbyname("http")), socket.getdefaulttimeout(), attempt(lambda: socket.getnameinfo(("1.2.3.4", 80), 0))),
          "small integers and strings": lambda: (1 + 1, 7 * 8, 256 - 0, [n for n in range(-5, 257)] == list(map(int, map(str, range(-5, 257)))), "a" + "b", chr(65), bytes([66]), (), "", b"", sys.intern("polluted string") is sys.intern("polluted " + "string")),
          "type slots": lambda: (repr(1), str(1.5), bool([]), len("a"), 1 == 1, "a" in "abc", isinstance(1, int), issubclass(bool, int), [1] + [2], {1: 2}[1], -1, ~1, hash(1)),
          "caches": lambda: (re._cache and sorted(map(repr, re._cache)), sorted(linecache.cache), functools.cmp_to_key.__module__, mimetypes.guess_type("a.polluted"), unicodedata.name("a"), struct.calcsize("i"), csv.list_dialects(), csv.field_size_limit(), len(typing.Optional[int].__args__), zoneinfo.TZPATH, abc.get_cache_token(), string.ascii_letters, len(weakref.WeakValueDictionary())),
          "tempfile": lambda: (tempfile.tempdir, tempfile.template, tempfile._name_sequence),
          "debugging": lambda: (faulthandler.is_enabled(), tracemalloc.is_tracing(), tracemalloc.get_traced_memory()),
          "ctypes": lambda: (ctypes.get_errno(), sorted(set(vars(ctypes.pythonapi)) - {"_FuncPtr"})),
          "abc": lambda: (issubclass(float, collections.abc.Sized), isinstance(1, collections.abc.Hashable)),
          "clocks": lambda: (time.sleep.__qualname__, time.time() > 1.7e9, time.get_clock_info("monotonic").implementation),
          "selectors": lambda: attempt(lambda: select.select([], [], [], 0)),
          "umbrella": lambda: (shutil.get_archive_formats(), stat.filemode(0o100644), unittest.TestCase.maxDiff, queue.Queue.__init__.__defaults__, types.SimpleNamespace(a=1).a),
      }
      seen = {}
      for name, probe in probes.items():
          seen[name] = repr(attempt(probe))
      return seen
  look()`;

interface Polluter {
  readonly name: string;
  readonly code: string;
  /** It changes what no rewind can undo: the sandbox must be replaced, for this reason. */
  readonly discards?: RegExp;
  /** The execution itself may fail; what matters is what it leaves. */
  readonly mayFail?: true;
}

const POLLUTERS: readonly Polluter[] = [
  { name: "global variables", code: "secret = 'polluted'; import __main__; __main__.other = secret" },
  { name: "builtins replaced", code: "import builtins\nbuiltins.len = lambda x: 0\nbuiltins.secret = 'polluted'" },
  { name: "builtins deleted", code: "import builtins\ndel builtins.sorted, builtins.abs" },
  {
    name: "sys.modules entries",
    code: "import sys, types\nsys.modules['polluted'] = types.ModuleType('polluted')\nsys.modules['json'] = None\ndel sys.modules['re']",
  },
  { name: "json.dumps patched", code: "import json\njson.dumps = lambda *a, **k: 'polluted'" },
  {
    name: "many modules patched",
    code: "import math, os, re, time, random, statistics\nmath.sqrt = re.sub = time.time = random.random = statistics.mean = os.getcwd = lambda *a: 'polluted'",
  },
  {
    name: "the runner patched",
    code: "import sandbox_runner.execution as e, sandbox_runner.display as d\ne.seeds.reseed = lambda: None\ne.seeds.places = b''\ne.seeds.random.seed(1)\ne._evaluate_was = e._evaluate\nd.secret = 'polluted'\nd._sent_bytes = 10**9",
  },
  {
    name: "the runner's own function replaced",
    code: "import sandbox_runner.execution as e\nfor f in (e.run, e.run_plain, e.run_line): f.__code__ = (lambda request: b'{}').__code__",
  },
  {
    name: "pathlib patched",
    code: "import pathlib\npathlib.Path.__truediv__ = lambda self, other: 'polluted'\npathlib.PurePath.secret = 1",
  },
  {
    name: "sys.path, meta_path, path_hooks",
    code: "import sys\nsys.path.insert(0, '/tmp')\nsys.path_hooks.insert(0, lambda p: None)\nclass F:\n  def find_spec(*a): return None\nsys.meta_path.insert(0, F())",
  },
  {
    name: "a poisoned module on disk",
    code: "import sys\nfor folder in ('/tmp', '/home/pyodide', '/plots'):\n  for name in ('json', 'colorsys', 'sitecustomize', 'sched'):\n    open(f'{folder}/{name}.py', 'w').write('polluted = 1')\nsys.path[:0] = ['/tmp', '']\nimport colorsys, sched",
  },
  {
    name: "files in every directory",
    code: py`
      import os
      for folder, folders, files in os.walk("/"):
          for name in ("polluted", "__init__.py", "colorsys.py", "__pycache__/x.pyc"):
              try: open(os.path.join(folder, name), "w").write("polluted")
              except OSError: pass
          for change in (lambda: os.chmod(folder, 0o777), lambda: os.utime(folder, (1, 1)), lambda: os.mkdir(folder + "/polluted-folder"), lambda: os.symlink("/tmp", folder + "/polluted-link"), lambda: os.rename(folder, "/tmp/moved")):
              try: change()
              except OSError: pass`,
  },
  {
    name: "files of the runner written to",
    code: py`
      import fcntl, mmap, os
      for name in os.listdir("/lib/importlib_bootstrap/sandbox_runner"):
          path = f"/lib/importlib_bootstrap/sandbox_runner/{name}"
          fd = os.open(path, os.O_RDONLY)
          fcntl.fcntl(fd, fcntl.F_SETFL, os.O_RDWR)
          for change in (lambda: os.write(fd, b"polluted"), lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0), lambda: os.truncate(path, 0), lambda: os.remove(path), lambda: os.fchmod(fd, 0o777), lambda: os.utime(path, (1, 1)), lambda: os.replace("/tmp", path)):
              try: change()
              except OSError: pass
          try:
              with mmap.mmap(fd, 0) as m:
                  m[0:8] = b"polluted"
                  m.flush()
          except (OSError, ValueError, TypeError): pass`,
  },
  {
    name: "compiled modules",
    code: "import py_compile, os\nopen('/tmp/m.py', 'w').write('x = 1')\npy_compile.compile('/tmp/m.py')\nimport sys; sys.path.insert(0, '/tmp'); import m",
  },
  {
    name: "a rename that failed",
    code: "import os\nos.makedirs('a'); os.makedirs('b/c'); open('a/secret', 'w').write('polluted')\ntry: os.rename('a', 'b')\nexcept OSError: pass\nos.listdir('/home/pyodide')",
  },
  {
    name: "renames, swaps and links",
    code: "import os\nfor i in range(20): os.mkdir(f'd{i}')\nfor i in range(20): os.rename(f'd{i}', f'e{i}')\nos.makedirs('x/y'); open('x/y/z', 'w').write('polluted'); os.rename('x/y', '/home/pyodide/y'); os.symlink('y', 'l'); os.replace('y/z', 'q')",
  },
  {
    name: "the working folder, and then no folder",
    code: "import os\nos.makedirs('/tmp/gone/in'); os.chdir('/tmp/gone/in'); os.rename('/tmp/gone', '/tmp/went')",
  },
  {
    name: "devices read and written",
    code: "import os\nopen('/dev/null', 'w').write('x'); open('/dev/random', 'rb').read(3); open('/dev/urandom', 'rb').read(3); open('/dev/tty').read()",
  },
  {
    name: "open files",
    code: "files = [open(f'/tmp/{i}', 'w+') for i in range(50)]\nimport os\nos.dup2(files[0].fileno(), 100)",
  },
  { name: "all descriptors", code: "import os\ntry:\n  while True: os.dup(0)\nexcept OSError: pass" },
  { name: "pipes", code: "import os\nfor _ in range(50):\n  r, w = os.pipe(); os.write(w, b'polluted')" },
  { name: "descriptors 0, 1, 2 closed", code: "import os\nfor fd in (0, 1, 2): os.close(fd)" },
  {
    name: "descriptors 0, 1, 2 on files",
    code: "import os\nfor fd in (0, 1, 2): os.dup2(os.open('/tmp/x', os.O_CREAT | os.O_RDWR), fd)\nprint('polluted')",
  },
  {
    name: "the device closed and replaced",
    code: "import os\nos.dup2(os.open('/tmp/x', os.O_CREAT | os.O_RDWR), 4000)",
    mayFail: true,
  },
  {
    name: "the device at another number, half an answer unread",
    code: "import os\nos.write(4000, b'[\"polluted\", 1]'); os.read(4000, 3); os.dup2(4000, 50)",
  },
  { name: "stdin half read", code: "import sys, os\nos.read(0, 3); sys.stdin.read(2)" },
  {
    name: "standard streams replaced",
    code: "import sys, io\nsys.stdout = sys.stderr = sys.__stdout__ = io.StringIO()\nsys.stdin = None",
  },
  { name: "standard streams closed", code: "import sys\nsys.stdout.close(); sys.stderr.close(); sys.stdin.close()" },
  {
    name: "standard streams with another encoding",
    code: "import sys\nsys.stdout.reconfigure(encoding='utf-16', errors='strict')\nprint('polluted', end='')",
  },
  {
    name: "environment, time zone, umask",
    code: "import os, time\nos.environ['SECRET'] = 'polluted'; os.putenv('X', 'y'); os.environ['TZ'] = 'Asia/Tokyo'; os.umask(0o777); del os.environ['HOME']",
  },
  {
    name: "locale",
    code: "import locale\nfor name in ('C', 'de_DE.UTF-8', 'tr_TR', ''):\n  try: locale.setlocale(locale.LC_ALL, name)\n  except locale.Error: pass\nlocale.getpreferredencoding = lambda *a: 'polluted'",
  },
  {
    name: "warnings",
    code: "import warnings\nwarnings.simplefilter('error')\nwarnings.showwarning = print\nwarnings.warn_explicit('polluted', UserWarning, 'f', 1, registry=globals().setdefault('__warningregistry__', {}))",
    mayFail: true,
  },
  {
    name: "decimal contexts",
    code: "import decimal\ndecimal.getcontext().prec = 3; decimal.DefaultContext.prec = 5; decimal.setcontext(decimal.ExtendedContext)",
  },
  {
    name: "random",
    code: "import random\nrandom.seed(1); random.gauss(0, 1); random.random = lambda: 4; random._inst = random.SystemRandom()",
  },
  { name: "atexit", code: "import atexit\natexit.register(print, 'polluted')" },
  {
    name: "gc settings and callbacks",
    code: "import gc\ngc.callbacks.append(lambda *a: print('polluted')); gc.set_threshold(1, 1, 1); gc.set_debug(gc.DEBUG_SAVEALL); gc.disable(); gc.freeze()",
  },
  {
    name: "garbage with finalizers",
    code: "import gc\nclass G:\n  def __del__(self): print('polluted'); open('/tmp/polluted', 'w')\nfor _ in range(100):\n  a, b = G(), G(); a.b = b; b.a = a\ndel a, b",
  },
  {
    name: "settrace, setprofile",
    code: "import sys, threading\nthreading.settrace(print); threading.setprofile(print)\nsys.setprofile(lambda *a: None); sys.settrace(lambda *a: None)",
  },
  {
    name: "sys.monitoring",
    code: "import sys\nm = sys.monitoring\nm.use_tool_id(3, 'polluted'); m.set_events(3, m.events.CALL | m.events.LINE); m.register_callback(3, m.events.CALL, lambda *a: None)",
  },
  {
    name: "hooks of sys",
    code: "import sys\nsys.excepthook = sys.displayhook = sys.unraisablehook = sys.breakpointhook = lambda *a: None\nsys.set_coroutine_origin_tracking_depth(5); sys.set_asyncgen_hooks(lambda g: None)\nsys.ps1 = 'polluted'; sys.tracebacklimit = 0; sys.dont_write_bytecode = True",
  },
  {
    name: "audit hooks, which cannot be removed",
    code: "import sys\nsys.addaudithook(lambda event, args: globals().__setitem__('audited', event))",
  },
  {
    name: "limits of sys",
    code: "import sys\nsys.setrecursionlimit(100); sys.setswitchinterval(1); sys.set_int_max_str_digits(0); sys.argv[:] = ['polluted']",
  },
  {
    name: "threading",
    code: "import threading\nlocal = threading.local(); local.secret = 'polluted'; threading.stack_size(2**20); threading.current_thread().name = 'polluted'\nthreading._dangling.add(threading.Thread()); threading.excepthook = print",
  },
  {
    name: "codecs and error handlers",
    code: "import codecs\ncodecs.register(lambda name: codecs.lookup('rot13') if name == 'polluted' else None); codecs.register_error('polluted', lambda e: ('', e.end)); codecs.lookup('polluted')",
  },
  {
    name: "copyreg, pickle, csv, mimetypes",
    code: "import copyreg, csv, mimetypes, shutil\ncopyreg.pickle(complex, print); copyreg.add_extension('a', 'b', 77); csv.register_dialect('polluted'); csv.field_size_limit(3)\nmimetypes.add_type('polluted/x', '.polluted'); shutil.register_archive_format('polluted', print)",
  },
  {
    name: "logging",
    code: "import logging\nlogging.basicConfig(level=1, format='polluted %(message)s'); logging.getLogger('polluted').addHandler(logging.StreamHandler()); logging.disable(50); logging.addLevelName(5, 'polluted'); logging.setLoggerClass(type('L', (logging.Logger,), {}))",
  },
  {
    name: "signal handlers",
    code: "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, print)",
  },
  {
    name: "weak references with callbacks",
    code: "import weakref\nclass A: pass\na = A(); r = weakref.ref(a, lambda r: print('polluted')); f = weakref.finalize(a, print, 'polluted')",
  },
  { name: "context variables", code: "import contextvars\nv = contextvars.ContextVar('polluted'); v.set(1)" },
  {
    name: "asyncio tasks, callbacks, loops",
    code: "import asyncio\nasync def late():\n  await asyncio.sleep(60); print('polluted')\nloop = asyncio.get_event_loop(); task = loop.create_task(late()); loop.call_later(0, print, 'polluted'); loop.call_soon(print, 'polluted'); loop.set_debug(True)\nawait asyncio.sleep(0)",
  },
  {
    name: "a closed event loop, another policy",
    code: "import asyncio\nasyncio.get_event_loop().close(); asyncio.set_event_loop(None)\nasyncio.run = print; asyncio.events._set_running_loop(object())",
    mayFail: true,
  },
  {
    name: "suspended generators and coroutines",
    code: "def g():\n  try: yield 1\n  finally: print('polluted')\nx = g(); next(x)\nasync def c(): pass\ny = c()",
  },
  {
    name: "classes that registered themselves",
    code: "import collections.abc, enum, json, threading\nclass E(json.JSONEncoder): pass\nclass T(threading.Thread): pass\nclass X(Exception): pass\ncollections.abc.Sized.register(float)\ntype('Polluted', (int,), {})",
  },
  {
    name: "attributes of built-in types, by gc",
    code: "import gc\ngc.get_referents(int.__dict__)[0]['polluted'] = 1\ngc.get_referents(str.__dict__)[0]['polluted'] = 1\ndel gc.get_referents(list.__dict__)[0]['copy']",
  },
  {
    name: "a small integer rewritten, by ctypes",
    code: "import ctypes\nctypes.memmove(id(7) + 12, (ctypes.c_uint32 * 1)(8), 4)",
    mayFail: true,
  },
  {
    name: "an interned string rewritten, by ctypes",
    code: "import ctypes, sys\ns = sys.intern('pollutedname'); ctypes.memmove(id(s) + 20, b'P', 1); t = sys.intern('polluted string')",
  },
  {
    name: "None's class and True's value",
    code: "import ctypes\nctypes.memmove(id(True) + 12, (ctypes.c_uint32 * 1)(0), 4)",
    mayFail: true,
  },
  {
    name: "type slots, by ctypes",
    code: "import ctypes\nslot = ctypes.c_uint32.from_address(id(list) + 48)\nslot.value = ctypes.c_uint32.from_address(id(tuple) + 48).value",
    mayFail: true,
  },
  {
    name: "memory at large, by ctypes",
    code: "import ctypes\nctypes.memset(2 ** 20, 0x41, 2 ** 16)",
    mayFail: true,
  },
  {
    name: "the heap grown and filled",
    code: "blocks = [bytearray(b'polluted' * 2**17) for _ in range(40)]\ndel blocks[::2]",
  },
  {
    name: "the heap grown beyond what is kept",
    code: "x = bytearray(b'polluted') * (180 * 2**17)",
    discards: /heap over its limit/,
  },
  {
    name: "deep stack",
    code: "def f(n): return [n, f(n - 1)] if n else []\nx = f(900)\nimport re\nre.match('(a?){500}', 'a' * 500)",
  },
  {
    name: "regular expressions, lines, caches",
    code: "import re, linecache, functools\nfor i in range(600): re.compile(f'polluted{i}')\nlinecache.cache['polluted'] = (1, None, ['x'], 'x')\nfunctools.lru_cache(lambda x: x)(1)",
  },
  {
    name: "names of hosts and protocols",
    code: "import socket\nfor name in ('secret.example', 'a.example'):\n  try: socket.gethostbyname(name)\n  except OSError: pass\ntry: socket.getprotobyname('tcp')\nexcept OSError: pass\nsocket.setdefaulttimeout(1)",
  },
  {
    name: "tempfile",
    code: "import tempfile\ntempfile.tempdir = '/plots'; tempfile.template = 'polluted'; tempfile.mkdtemp(); tempfile.NamedTemporaryFile(delete=False)",
  },
  {
    name: "faulthandler and tracemalloc",
    code: "import faulthandler, tracemalloc\nfaulthandler.enable(); tracemalloc.start(25)\nx = [object() for _ in range(1000)]",
  },
  {
    name: "memory mapped files",
    code: "import mmap\nm = mmap.mmap(-1, 10**6); m.write(b'polluted')\nopen('/tmp/f', 'wb').write(bytes(5000)); f = open('/tmp/f', 'r+b'); n = mmap.mmap(f.fileno(), 0); n[0] = 1",
  },
  { name: "displayed data", code: "display('polluted')\nimport sandbox_runner.display as d\nd._sent_bytes = 10**9" },
  {
    name: "ctypes: errno, pointers, structures, functions",
    code: "import ctypes\nctypes.set_errno(77); ctypes.POINTER(ctypes.c_longlong)\nclass S(ctypes.Structure): _fields_ = [('x', ctypes.c_int)]\nctypes.pythonapi.Py_GetVersion",
  },
  {
    name: "ctypes: a callback",
    code: "import ctypes\nf = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 3)\nf()",
    discards: /ffi_closure_alloc_js/,
  },
  {
    name: "ctypes: a callback that is freed again",
    code: "import ctypes, gc\nf = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 3)\nf(); del f; gc.collect()",
    discards: /ffi_closure/,
  },
  {
    name: "ctypes: a look-up of many symbols",
    code: "import ctypes\nlib = ctypes.CDLL(None)\nfor name in ('PyList_Size', 'PyDict_Next', 'qsort', 'strtol', 'mblen', 'wcstol', 'PyOS_mystrnicmp'):\n  getattr(lib, name, None)",
  },
  {
    name: "a reference into JavaScript",
    code: "import ctypes\nnew = ctypes.CDLL(None).hiwire_new\nnew.argtypes = [ctypes.c_double]\nnew(3.5)",
    discards: /JavaScript references/,
  },
  { name: "timers", code: "import ctypes\nctypes.CDLL(None).alarm(60)", mayFail: true, discards: /crashed|setitimer/ },
  {
    name: "importing everything",
    code: py`
      import importlib, pkgutil, sys, warnings
      warnings.simplefilter("ignore")
      for module in sorted(sys.stdlib_module_names - {"antigravity", "this", "idlelib", "turtle", "turtledemo", "tkinter", "test", "lib2to3"}):
          try: importlib.import_module(module)
          except BaseException: pass`,
    mayFail: true,
  },
  { name: "a crash", code: "import ctypes\nctypes.CFUNCTYPE(None)(1)()", mayFail: true, discards: /.*/ },
  {
    name: "an exception left in sys.last_exc",
    code: "import sys\nsys.last_exc = sys.last_value = ValueError('polluted'); 1 / 0",
    mayFail: true,
  },
  { name: "an exit", code: "import os\nsecret = 'polluted'\nos._exit(3)", mayFail: true },
];

let tested: TestEngine;
let pristine: Record<string, string>;

async function look(): Promise<Record<string, string>> {
  const { success, result, error, stdout, stderr, outputs } = await tested.run(PROBE, { stdin: "0123456789" });
  expect({ success, error, stdout, stderr, outputs }).toEqual({
    success: true,
    error: null,
    stdout: "",
    stderr: "",
    outputs: [],
  });
  return result as Record<string, string>;
}

/** What the probe sees otherwise than in a new process: was, is. */
async function traces(): Promise<Record<string, [string | undefined, string]>> {
  const now = Object.entries(await look());
  return Object.fromEntries(now.flatMap(([name, is]) => (is === pristine[name] ? [] : [[name, [pristine[name], is]]])));
}

beforeAll(async () => {
  tested = await startTestEngine();
  pristine = await look();
});
afterAll(() => tested.stop());

test("the probe sees what it is for", async () => {
  expect(Object.keys(pristine).length).toBeGreaterThan(40);
  // Its parts may fail where the sandbox refuses something, but not many, or it would see nothing.
  expect(Object.entries(pristine).filter(([, seen]) => /^'\w+(Error|Exception)/.test(seen))).toEqual([]);
  const { result } = await tested.run(`import json\njson.dumps = 5\nsecret = 1\n${PROBE}`);
  const changed = Object.entries(result as Record<string, string>).filter(([name, seen]) => seen !== pristine[name]);
  expect(changed.map(([name]) => name)).toEqual(
    expect.arrayContaining(["globals", "functions of modules", "functions work"]),
  );
});

test("a sandbox in its first execution and in its second look the same", async () => {
  expect(await traces()).toEqual({});
});

describe("what is left behind is invisible to the next execution", () => {
  test.each(POLLUTERS.map((polluter) => [polluter.name, polluter] as const))(
    "%s",
    async (_, { code, discards, mayFail }) => {
      const before = tested.executor.pool.status();
      const { success, errorInfo } = await tested.run(code, { stdin: "0123456789" });
      if (!mayFail) expect({ success, errorInfo }).toEqual({ success: true, errorInfo: undefined });
      expect(await traces()).toEqual({});
      const after = tested.executor.pool.status();
      const reasons = Object.keys(after.discarded).filter(
        (reason) => after.discarded[reason] !== before.discarded[reason],
      );
      if (!discards) expect(reasons).toEqual([]);
      else expect(reasons).toEqual([expect.stringMatching(discards)]);
    },
  );
});

describe("no byte of a tenant stays in memory", () => {
  const marker = "kQ7vXz2mSecretMarker";
  /** Counts places in memory without copying any, and without holding the marker itself in one piece. */
  const scan = py`
    import ctypes, re
    pattern = re.compile(b"${[...marker].map((letter) => `[${letter}]`).join("")}")
    sum(1 for _ in pattern.finditer((ctypes.c_char * (end - 4096)).from_address(4096)))`;
  const places = async (before = "") => {
    const end = tested.executor.pool.sandboxes()[0]?.heapBytes;
    const { result, error } = await tested.run(before + scan, { context: { end } });
    expect(error).toBe(null);
    return result as number;
  };

  test("the scan finds what is there", async () => {
    expect(await places(`kept = "${marker}"\n`)).toBeGreaterThan(1);
  });

  test.each([
    ["in a variable, in the source, in the output", `kept = "${marker}" * 1000\nprint(kept)\nkept`],
    [
      "in memory that was freed",
      `x = [("${marker}" + str(i)) * 50 for i in range(20_000)]\ndel x\nimport gc; gc.collect()`,
    ],
    ["in memory that the heap grew by", `x = bytearray(b"${marker}" * 10**6)\ny = bytes(x)`],
    [
      "in dead stack",
      `import re\nre.match("((${marker})|b)*", "${marker}" * 2000)\ndef f(n): return f"{n}${marker}" + (f(n - 1) if n else "")\nlen(f(900))`,
    ],
    [
      "in files, pipes and stdin",
      `import os, mmap\nopen("/tmp/${marker}", "w").write("${marker}" * 10_000)\nr, w = os.pipe(); os.write(w, b"${marker}")\nf = open("/tmp/${marker}", "r+b"); m = mmap.mmap(f.fileno(), 0); input()`,
    ],
    ["in an exception", `raise ValueError("${marker}")`],
    [
      "in the environment and in interned strings",
      `import os, sys\nos.environ["X"] = "${marker}"; sys.intern("${marker}")`,
    ],
  ])("%s", async (_, code) => {
    await tested.run(code, { stdin: marker, context: { value: marker } });
    expect(await places()).toBe(0);
  });
});
