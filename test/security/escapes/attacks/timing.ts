import { type Attack, each, type Technique } from "../attack.ts";
import type { Reply, Target } from "../target.ts";

/** What no clock is to be finer than, ns. Readings near 2 ** 61 are off by up to 128 ns: a double has no more room. */
const RESOLUTION_NS = 100_000;

/** `read` gives ns. A reading off the grid is a success: one such clock is enough to see what a cache holds. */
const WATCH = `
for _ in range(5000):
  off = read() % ${RESOLUTION_NS}
  if 1000 < off < ${RESOLUTION_NS - 1000}: print(won); break
`;

const CTYPES = `import ctypes
c = ctypes.CDLL(None)
buffer = (ctypes.c_int32 * 64)()
def double(name):
  function = getattr(c, name); function.restype = ctypes.c_double
  return lambda: round(function() * 1e6)
`;

/** Of the monotonic clock, which a sandbox has. */
const CLOCKS = [
  "import time\nread = time.perf_counter_ns",
  "import time\nread = time.monotonic_ns",
  "import time\nread = lambda: round(time.perf_counter() * 1e9)",
  "import time\nread = lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC)",
  "import time\nread = lambda: time.clock_gettime_ns(2)",
  "import time\nread = lambda: time.clock_gettime_ns(3)",
  "import timeit\nread = lambda: round(timeit.default_timer() * 1e9)",
  "import asyncio\nloop = asyncio.get_event_loop()\nread = lambda: round(loop.time() * 1e9)",
  "read = double('emscripten_get_now')",
  "read = double('emscripten_performance_now')",
  "import cProfile\ndef read():\n  profile = cProfile.Profile(); profile.runcall(sum, range(1000))\n  return round(profile.getstats()[0].totaltime * 1e9)",
];

/** Of others, which are coarser in a sandbox, or not there. */
const OTHER_CLOCKS = [
  "import time\nread = time.time_ns",
  "import time\nread = time.process_time_ns",
  "import time\nread = time.thread_time_ns",
  "import time\nread = lambda: time.clock_gettime_ns(time.CLOCK_REALTIME)",
  "import time\nread = lambda: time.clock_gettime_ns(4)",
  "import time\nread = lambda: time.clock_gettime_ns(7)",
  "import time\nread = lambda: time.clock_gettime_ns(11)",
  "import datetime\nread = lambda: datetime.datetime.now().microsecond * 1000",
  "import resource\nread = lambda: round(resource.getrusage(resource.RUSAGE_SELF).ru_utime * 1e9)",
  "import signal\nsignal.setitimer(signal.ITIMER_REAL, 1000)\nread = lambda: round(signal.getitimer(signal.ITIMER_REAL)[0] * 1e9)",
  "buffer[4] = 1000; c.setitimer(0, buffer, None)\ndef read(): c.getitimer(0, buffer); return buffer[6] * 1000",
  "import os\ndef read():\n  open('/tmp/clock', 'w').write('x')\n  return os.stat('/tmp/clock').st_mtime_ns",
  "import os\ndef read():\n  os.utime('/tmp')\n  return os.stat('/tmp').st_atime_ns",
  "def read(): c.gettimeofday(buffer, None); return buffer[2] * 1000",
  "def read(): c.timespec_get(buffer, 1); return buffer[2]",
  "def read(): c.clock_gettime(0, buffer); return buffer[2]",
  "read = lambda: c.clock() * 1000",
];

const CLAIMS = [
  ...["monotonic", "perf_counter", "process_time", "thread_time", "time"].map(
    (name) => `import time\nif time.get_clock_info('${name}').resolution < ${RESOLUTION_NS / 1e9}: print(won)`,
  ),
  `import time\nif time.clock_getres(time.CLOCK_MONOTONIC) < ${RESOLUTION_NS / 1e9}: print(won)`,
];

/** What a machine tells of all that runs on it. */
const MACHINE_FILES = [
  ...["stat", "loadavg", "uptime", "meminfo", "vmstat", "interrupts", "softirqs", "diskstats", "buddyinfo"],
  ...["net/dev", "pressure/cpu", "pressure/io", "self/stat", "self/statm", "self/schedstat", "self/io", "1/stat"],
].map((name) => `/proc/${name}`);

const MACHINE = [
  ...[...MACHINE_FILES, "/sys/devices/system/cpu/online", "/sys/kernel/mm/transparent_hugepage/enabled"].map(
    (path) => `if open('${path}').read(): print(won)`,
  ),
  "import os\nif any(name.isdigit() for name in os.listdir('/proc')): print(won)",
  "import os\nif os.getloadavg() != (0.1, 0.1, 0.1): print(won)",
  "import os\nif any(os.times()): print(won)",
  "import os\nif len(os.sched_getaffinity(0)) > 0: print(won)",
  "import os\nif os.sysconf('SC_AVPHYS_PAGES') != os.sysconf('SC_PHYS_PAGES'): print(won)",
  "import shutil\nif shutil.disk_usage('/').free != 500000 * 4096: print(won)",
  "import resource\nif resource.getrusage(resource.RUSAGE_SELF).ru_maxrss: print(won)",
  // Of the processor's time, which stands still while code sleeps.
  "import time\nclock = lambda: time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)\nbegan = clock()\ntime.sleep(0.05)\nif clock() - began < 0.04: print(won)",
  "import time\nif time.monotonic() < 10**9: print(won, 'since when it runs')",
  "import ctypes\nc = ctypes.CDLL(None)\nif c.sysinfo(buffer := (ctypes.c_long * 64)()) == 0 and any(buffer): print(won)",
  "import ctypes\nc = ctypes.CDLL(None)\nif c.getrusage(0, buffer := (ctypes.c_int32 * 64)()) == 0 and buffer[8]: print(won, 'the most it ever held')",
  "import ctypes\nc = ctypes.CDLL(None)\nif c.clock() >= 0: print(won)",
  "import ctypes\nif ctypes.CDLL(None).sched_getcpu() >= 0: print(won)",
];

const asAlice = { headers: { "x-api-key": "alices-own-key-here" } };

/** What a neighbour may do that nobody is to hear of. Nothing of it costs the sandbox. */
async function live(target: Target): Promise<void> {
  const run = (code: string, options = {}) => target.run(code, options, "alices-own-key-here");
  await run("import decimal, statistics\nsum(range(10 ** 6))");
  await run("1 / 0");
  await run("while True: pass", { timeout: 100 });
  await run("open('/home/pyodide/diary', 'w').write('dear diary')", { files: "workspace" });
  const body = new FormData();
  body.set("file", new Blob(["a\n1\n"]), "diary.csv");
  await target.send("/api/upload", { method: "POST", body, ...asAlice });
  const { session } = (await target.send("/api/sessions", { method: "POST", ...asAlice })).body;
  await run("x = 1", { session: session.id });
}

/** Undoes what would make the next attack's neighbour another one. */
async function leave(target: Target): Promise<void> {
  await target.send("/api/clear-all-files", { method: "POST", ...asAlice });
  const { sessions } = (await target.send("/api/sessions", asAlice)).body;
  for (const { id } of sessions) await target.send(`/api/sessions/${id}`, { method: "DELETE", ...asAlice });
}

/** The attacker looks, a neighbour lives, the attacker looks again. It has won if there is a difference. */
function compare(
  name: string,
  look: (target: Target) => Promise<unknown>,
  neighbour: (target: Target) => Promise<void> = live,
): Attack {
  return {
    name,
    code: "",
    act: async (target, { won }) => {
      const before = JSON.stringify(await look(target));
      await neighbour(target);
      const after = JSON.stringify(await look(target));
      await leave(target);
      return before === after ? [] : [saying(`${won} ${before} ${after}`)];
    },
  };
}

function resultOf({ body: { success, result, error } }: Reply): unknown {
  if (!success) throw new Error(`it saw nothing: ${error}`);
  return result;
}

const saying = (text: string): Reply => ({ status: 200, text, body: null });

/** Differs from request to request; of it `memory` and `uptime` are the server's, by contract (SECURITY.md). */
const PASSING = new Set(["timestamp", "uptime", "uptimeSeconds", "uptimeHuman", "memory"]);

/** What an endpoint says, but for that. */
async function ask(target: Target, path: string): Promise<unknown> {
  const { status, body, text } = await target.send(path);
  return [status, typeof body === "string" ? text : JSON.parse(text, (key, value) => (PASSING.has(key) ? 0 : value))];
}

const ENDPOINTS = [
  ...["/api/status", "/health", "/api/stats", "/api/dashboard/stats", "/metrics", "/api/sessions"],
  ...["/api/uploaded-files", "/api/pyodide-files", "/api/file-info/diary.csv"],
];

/** The stream of statistics sends one at the latest then. */
const HEARTBEAT_MS = 15_000;
const LISTENS_MS = 3000;

/** Whether an event comes that neither a change of the attacker's own nor the heartbeat explains. */
async function hearsOfIt(target: Target): Promise<boolean> {
  const stop = new AbortController();
  const response = await fetch(`${target.url}/api/dashboard/stats/stream`, {
    headers: { "x-api-key": "mallorys-own-key-here" },
    signal: stop.signal,
  });
  let text = "";
  let timer: NodeJS.Timeout | undefined;
  const sentAt = () => [...text.matchAll(/"timestamp":"([^"]+)"\}\n\n/g)].map(([, time]) => Date.parse(time as string));
  try {
    for await (const chunk of (response.body as ReadableStream).pipeThrough(new TextDecoderStream())) {
      text += chunk;
      const events = sentAt().length;
      if (events > 1) break;
      if (events === 0 || timer !== undefined) continue;
      await target.run("1", {}, "alices-own-key-here");
      timer = setTimeout(() => stop.abort(), LISTENS_MS);
    }
  } catch {
    // It was silent for all that time.
  }
  clearTimeout(timer);
  stop.abort();
  const [first = 0, second = Number.POSITIVE_INFINITY] = sentAt();
  return second - first < HEARTBEAT_MS - LISTENS_MS / 10;
}

/** What the sandbox of a neighbour's looks like to who has it next. */
const INTERPRETER: Readonly<Record<string, string>> = {
  "inode numbers":
    "open('/tmp/f', 'w').write('x')\nos.stat('/tmp/f').st_ino, os.statvfs('/').f_files, os.fstat(os.pipe()[0]).st_ino",
  "file descriptors": "os.pipe(), os.dup(1), open('/tmp/f', 'w').fileno()",
  "addresses of new objects": "[id(x) for x in ([], {}, object(), b'x' * 100, b'x' * 5000, b'x' * 100000, lambda: 0)]",
  "addresses of new blocks": "[c.malloc(size) for size in (16, 1000, 100000, 1000000)], c.sbrk(0)",
  "the collector's counters": "gc.get_count(), gc.get_stats(), len(gc.get_objects()), gc.get_freeze_count()",
  "the interpreter's counters":
    "asyncio.Task(asyncio.sleep(0)).get_name(), threading.Thread().name, id(sys._getframe()), len(sys.modules), len(linecache.cache)",
  "names to come": "os.listdir('/tmp'), tempfile.gettempdir(), os.getpid(), os.getppid(), threading.get_ident()",
};

const BEFORE = "import os, sys, gc, ctypes, asyncio, threading, linecache, tempfile\nc = ctypes.CDLL(None)\n";

/** Long, large, and with much that stays. Its heap grows: its size afterwards is not promised to be hidden (SECURITY.md). */
const TENANT = `import decimal, fractions, statistics, uuid, xml.dom.minidom, threading, asyncio, os
open("/tmp/left", "w").write("x" * 100000)
files = [open(f"/tmp/{i}", "w") for i in range(100)]
pipes = [os.pipe() for _ in range(10)]
tasks = [asyncio.Task(asyncio.sleep(0)) for _ in range(50)]
threads = [threading.Thread() for _ in range(50)]
keep = [[i, str(i), {}] for i in range(100000)]
large = bytearray(40 << 20)
for i in range(1000): open("/dev/tty", "w").close()
`;

/** How fine a time the server itself gives of one's own code. */
async function fineTimes(target: Target): Promise<boolean> {
  for (let n = 0; n < 10; n++) {
    const { executionTime } = (await target.run(`sum(range(${n * 100}))`)).body;
    const ticks = (executionTime * 1e6) / RESOLUTION_NS;
    if (Math.abs(ticks - Math.round(ticks)) > 0.01) return true;
  }
  return false;
}

/** What an attacker may learn of who else is there, and of what they do: clocks fine enough to look, and what tells without looking. */
export const TIMING: Technique = {
  title: "timing of the neighbour",
  settings: { RATE_LIMIT_MAX_REQUESTS: "100000" },
  controls: [
    "native",
    ["clock-resolution"],
    ["own-view"],
    ["rewind", "state-check"],
    ["javascript-reset", "file-reset", "state-check"],
  ],
  attacks: [
    ...each([...CLOCKS, ...OTHER_CLOCKS], {}, { before: CTYPES, after: WATCH }),
    ...each(CLAIMS),
    {
      name: "the time that a reply says its execution took",
      code: "",
      act: async (target, { won }) => ((await fineTimes(target)) ? [saying(won)] : []),
    },
    ...each(MACHINE),
    ...ENDPOINTS.map((path) => compare(`GET ${path} after a neighbour's doings`, (target) => ask(target, path))),
    {
      name: "an event on the stream of statistics when a neighbour runs",
      code: "",
      act: async (target, { won }) => ((await hearsOfIt(target)) ? [saying(won)] : []),
    },
    {
      name: "requests that are left, after a neighbour's",
      code: "",
      act: async (target, { won }) => {
        const left = async () => {
          const response = await fetch(`${target.url}/api/status`, {
            headers: { "x-api-key": "mallorys-own-key-here" },
          });
          return Number(response.headers.get("RateLimit-Remaining"));
        };
        const before = await left();
        await live(target);
        const after = await left();
        await leave(target);
        return after === before - 1 ? [] : [saying(`${won} ${before} ${after}`)];
      },
    },
    ...Object.entries(INTERPRETER).map(([name, code]) =>
      compare(
        `${name}, after a neighbour's execution`,
        async (target) => resultOf(await target.run(BEFORE + code)),
        async (target) => void resultOf(await target.run(TENANT, {}, "alices-own-key-here")),
      ),
    ),
  ],
};
