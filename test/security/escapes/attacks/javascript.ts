import { each, excuse, REACHED, type Technique } from "../attack.ts";

/** `own(x)`: says so if `x` gives access to JavaScript, by whatever attribute. */
const PRELUDE = `import sys, gc
write = "globalThis.process.getBuiltinModule('fs').writeFileSync('" + marker + "', 'x')"
def own(x):
  for name in ("constructor", "Function", "globalThis", "eval", "process", "Deno", "fetch", "self", "_module", "FS"):
    value = getattr(x, name, None)
    if value is None: continue
    # A module of Python's is not JavaScript, and neither is a stand-in.
    if type(value).__module__ in ("pyodide.ffi", "_pyodide_core", "_pyodide._core_docs"): print(won, name, value)
  try: x.constructor.constructor(write)()
  except AttributeError: pass
def proxies(found):
  for x in list(found):
    if type(x).__module__ == "pyodide.ffi" or "JsProxy" in [c.__name__ for c in type(x).__mro__]: own(x)
`;

export const JAVASCRIPT: Technique = {
  title: "JavaScript from Python",
  controls: ["stock", ["seal", "references", "realm", "code-generation"]],
  attacks: excuse(
    [
      ...each(
        [
          "import js\njs.eval(write)",
          "import js\njs.Function.new(write)()",
          "import js\njs.process.getBuiltinModule('child_process').execSync('touch ' + marker)",
          "import js\njs.Deno.readTextFileSync(secret_file)",
          "import js\njs.globalThis",
          "from js import fetch\nfetch(f'http://127.0.0.1:{port}/')",
          "from js import XMLHttpRequest",
          "from js import WebAssembly",
          "import js.globalThis",
          "import pyodide_js",
          "import os, js, pyodide_js\nfrom pyodide.ffi import to_js\nFS = pyodide_js._module.FS\nos.makedirs('/host')\nFS.mount(FS.filesystems.NODEFS, to_js({'root': '/'}, dict_converter=js.Object.fromEntries), '/host')\nprint(open('/host' + secret_file).read())",
          "from pyodide_js import _api",
          "from pyodide_js._module import FS",
          "import pyodide_js\npyodide_js.mountNodeFS('/mnt', '/')",
          "import pyodide_js\npyodide_js.loadPackage('file:///etc/passwd')",
          "from pyodide.code import run_js\nrun_js(write)",
          "import pyodide.code\npyodide.code.run_js('import(\"node:fs\")')",
          "import pyodide.code\npyodide.code.run_js('process.binding(\"spawn_sync\")')",
          "import pyodide\npyodide.run_js(write) if hasattr(pyodide, 'run_js') else 1 / 0",
          "from pyodide.ffi import to_js\nto_js({'a': 1})",
          "from pyodide.ffi import create_proxy\ncreate_proxy(print)",
          "from pyodide.ffi import create_once_callable\ncreate_once_callable(print)",
          "from pyodide.ffi import run_sync\nimport asyncio\nrun_sync(asyncio.sleep(1))",
          "import pyodide.ffi.wrappers as w\nw.add_event_listener(object(), 'x', print); 1 / 0",
          "from pyodide.ffi.wrappers import set_timeout\nset_timeout(print, 0)",
          "from pyodide.http import open_url\nprint(open_url(f'http://127.0.0.1:{port}/').read())",
          "from pyodide.http import pyfetch\nprint(await (await pyfetch(f'http://127.0.0.1:{port}/')).string())",
          "from pyodide.http import pyxhr\nprint(pyxhr.get(f'http://127.0.0.1:{port}/').text)",
          "from pyodide.webloop import WebLoop\nWebLoop().call_later(0, print, won); 1 / 0",
          "import _pyodide_core\n_pyodide_core.run_js(write)",
          "from _pyodide._core_docs import run_js\nrun_js(write)\n1 / 0",
          "import pyodide_js.ffi",
          "import importlib\nimportlib.import_module('js').globalThis",
          "import js, _pyodide._importhook as h\nh.register_js_module('evil', js.Object.new()); import evil; evil.constructor",
          "import _pyodide._importhook as h\nh.jsfinder.jsproxies['js'].eval(write)",
        ],
        {},
        { before: PRELUDE, after: REACHED },
      ),
      ...each(
        [
          "import _pyodide_core\nfor n in dir(_pyodide_core): own(getattr(_pyodide_core, n))",
          "import pyodide.ffi\nfor n in dir(pyodide.ffi): own(getattr(pyodide.ffi, n))",
          "for name, module in list(sys.modules.items()):\n  proxies(vars(module).values())",
          "proxies(gc.get_objects())",
          "seen = set()\nqueue = gc.get_objects()\nwhile queue and len(seen) < 150000:\n  x = queue.pop()\n  if id(x) in seen: continue\n  seen.add(id(x))\n  proxies([x])\n  queue.extend(gc.get_referents(x))",
          "frame = sys._getframe()\nwhile frame:\n  proxies([*frame.f_locals.values(), *frame.f_globals.values()])\n  frame = frame.f_back",
          "for hook in sys.meta_path + sys.path_hooks: proxies([hook, *vars(hook).values()] if hasattr(hook, '__dict__') else [hook])",
          "for name in ('jsfinder', 'jsproxies', '_hooks'):\n  import _pyodide._importhook as h\n  proxies(getattr(getattr(h, name, None), '__dict__', {}).values())",
          "def subs(c):\n  for s in type.__subclasses__(c):\n    yield s\n    yield from subs(s)\nfor c in subs(object):\n  if c.__module__ == 'pyodide.ffi' or 'Js' in c.__name__:\n    for make in (lambda: c(), lambda: object.__new__(c), lambda: c.__new__(c), lambda: c.new()):\n      try: own(make())\n      except Exception: pass",
          "def subs(c):\n  for s in type.__subclasses__(c):\n    yield s\n    yield from subs(s)\nimport ctypes\nfor c in subs(object):\n  if 'JsProxy' in c.__name__:\n    for ref in (1, 2, 3, 10, 100, 1000, -1, 0x7fffffff):\n      raw = (ctypes.c_int * 64)(1, id(c), *([ref] * 60))\n      own(ctypes.cast(raw, ctypes.py_object).value)",
          "try:\n  import pyodide.ffi\n  raise pyodide.ffi.JsException('x')\nexcept BaseException as e: own(e); proxies(gc.get_referents(e))",
          "try:\n  from pyodide.ffi import to_js\n  to_js(print)\nexcept BaseException as e:\n  tb = e.__traceback__\n  while tb:\n    proxies(tb.tb_frame.f_locals.values())\n    tb = tb.tb_next",
          "import asyncio\nproxies(gc.get_referents(asyncio.get_event_loop())); proxies(vars(asyncio.get_event_loop()).values())",
          "import js\nown(js); own(js.console); proxies(vars(js).values())",
          "import _pyodide._base as b\nb.eval_code('import js; js.eval(write)', dict(write=write))",
          "import ctypes\nfor x in gc.get_objects():\n  if 'JsProxy' in [c.__name__ for c in type(x).__mro__]:\n    for ref in range(0, 64):\n      ctypes.c_int.from_address(id(x) + 12).value = ref\n      own(x)",
          "import site, zipimport, codecs\nfor codec in ('js', 'pyodide_js', 'javascript'):\n  try: codecs.lookup(codec)\n  except LookupError: pass",
          "import micropip\nproxies(vars(micropip).values())\nawait micropip.install('emfs:///etc/passwd')",
          "import micropip\nawait micropip.install('file://' + secret_file)",
          "import micropip\nawait micropip.install(f'http://127.0.0.1:{port}/x-1.0-py3-none-any.whl')",
          "import micropip\nawait micropip.install(f'x @ http://127.0.0.1:{port}/x-1.0-py3-none-any.whl')",
          "import micropip\nawait micropip.install('../../etc/passwd')",
          "import micropip\nawait micropip.install('a; rm -rf / #', index_urls=[f'http://127.0.0.1:{port}/'])",
          "import micropip\nmicropip.install.__globals__['device'].ask('install-packages', ['-r ' + secret_file])",
        ],
        {},
        { before: PRELUDE },
      ),
    ],
    {
      "the control's host is Node, which has none": [
        "js.Deno.readTextFileSync",
        "import XMLHttpRequest",
        "add_event_listener",
        "open_url",
        "pyxhr",
      ],
      "no Pyodide has it, or only in its documentation; a version might": [
        "pyodide.run_js(write) if",
        "_pyodide_core.run_js(write)",
        "_core_docs import run_js",
        "codecs.lookup(codec)",
      ],
      "there is nothing to be found in this place in any Pyodide; a version might put something there": [
        "dir(_pyodide_core)",
        "dir(pyodide.ffi)",
        "proxies(gc.get_objects())",
        "sys.meta_path + sys.path_hooks",
        "'jsfinder', 'jsproxies'",
        "def subs(c)",
        "to_js(print); except",
        "proxies(gc.get_referents(asyncio",
        "'JsProxy' in [c.__name__",
      ],
      "micropip here is a few lines of the sandbox's own, and asks the host, which has nothing that would act on it": [
        "import micropip",
      ],
    },
  ),
};
