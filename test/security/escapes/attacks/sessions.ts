import { each, excuse, type Technique } from "../attack.ts";
import { LOOK, POISON } from "./neighbours.ts";

/** What a session holds that is put back when it wakes, made as odd as user code can make it. */
const ODD_STATES = [
  "import os\nfor i in range(50): os.symlink('/lib', f'/tmp/link{i}')\nos.symlink('/tmp/loop', '/tmp/loop'); os.symlink('/dev/sandbox', '/home/pyodide/device')",
  "import os\nos.symlink('/lib/python314.zip/os.py', '/tmp/os'); kept = [open('/tmp/os', 'rb') for _ in range(20)]",
  "kept = [open('/dev/sandbox', 'r+b', 0), open('/dev/null', 'w'), open('/dev/urandom', 'rb')]",
  "import os\nkept = open('/tmp/gone', 'w'); os.remove('/tmp/gone'); kept.write(won)",
  "import os\nos.mkdir('/tmp/here'); os.chdir('/tmp/here'); os.rmdir('/tmp/here')",
  "import os\nos.close(0); os.close(1); os.close(2); os.dup2(4000, 1)",
  "import os\nr, w = os.pipe(); os.write(w, won.encode())",
  "kept = open('/tmp/f' + 'x' * 200, 'w'); kept.seek(2 ** 31); kept.write(won)",
  "import os\nos.makedirs('/tmp/' + '/'.join('d' for _ in range(200)))",
  "open('/home/pyodide/__proto__', 'w').write(won); open('/home/pyodide/constructor', 'w').write(won)",
  "open('/home/pyodide/\\udcff\\u202e\\n.txt', 'w').write(won)",
  "import ctypes\nctypes.memset(id(won), 0xff, 16)",
  "import ctypes\nfor at in range(0, 16 << 20, 4096): ctypes.c_int.from_address(at).value = 0x7f7f7f7f",
  "import ctypes\nkeep = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 5)",
  "import sys\nsys.modules.clear()",
  "import sandbox_runner.execution as e\ne.run.__code__ = (lambda request: b'\\xff').__code__",
  "import time, sandbox_runner.device as d\nd.ask = d.tell = lambda *a: print('stolen')",
  "import builtins\nfor n in list(vars(builtins)):\n  if n not in ('print',): delattr(builtins, n)",
  "x = bytearray(100 << 20)",
  "import random\nx = random.randbytes(20 << 20)",
  "import asyncio\nasync def f():\n  while True: await asyncio.sleep(0)\nkept = asyncio.get_event_loop().create_task(f())",
  "import threading, weakref, atexit\natexit.register(print, won)\nclass D:\n  def __del__(self): print(won)\nkept = D(); kept.me = kept; del kept",
];

/** What an attacker leaves in a session reaches neither another principal's session, nor what loads sessions. */
export const SESSIONS: Technique = {
  title: "out of a session",
  controls: [
    ["rewind", "file-reset", "state-check"],
    ["rewind", "file-reset", "state-check", "javascript-reset"],
  ],
  attacks: excuse(
    [
      ...POISON.map(([change, notice]) => ({
        name: change.replaceAll("\n", "; ").slice(0, 110),
        session: true,
        code: change,
        next: LOOK + notice,
      })),
      ...each(ODD_STATES, {
        session: true,
        next: `import os, gc
mine = won
del won
for place in ("/tmp", "/home/pyodide", "/plots/matplotlib"):
  for name in os.listdir(place): print(mine, name)
for fd in range(3, 100):
  try: os.fstat(fd)
  except OSError: continue
  print(mine, fd)
gc.collect()
assert os.getcwd() == "/home/pyodide" and len("abc") == 3`,
      }),
    ],
    {
      "the runner answers through it: what it says then is no answer, and ends the sandbox": ["json.dumps.__code__"],
      "without a rewind the next session does not notice it either: it is set up anew for each execution, or has gone by itself":
        [
          "c.to_json_data.__code__",
          "os.dup2(1, 0); os.close(2)",
          "os.dup2(0, 4000)",
          "await asyncio.sleep(0); print(won)",
          "codecs.register(lambda n",
          "sys.setrecursionlimit(60)",
          "set_int_max_str_digits(640)",
          "s = 'upper'; ctypes.memmove",
          "linecache.cache['<exec>']",
          "del buffer",
          "for at in range(0, 16 << 20",
          "threading, weakref, atexit",
        ],
    },
  ),
};
