import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { promisify } from "node:util";
import { afterEach, describe, expect, test } from "vitest";
import { detectIsolation } from "../../src/isolation/detect.ts";
import { innermostProcess } from "../../src/isolation/process-facts.ts";
import { GUEST_DIR, PYODIDE_DIR, sandboxCommand } from "../../src/sandbox/launch.ts";
import type { Sandbox, SandboxOptions } from "../../src/sandbox/sandbox.ts";
import { denoBinary } from "../../src/shared/deno-binary.ts";
import type { GuestOptions } from "../../src/wire/messages.ts";
import { testConfig } from "../support/config.ts";
import { guestOptions, runOn, startTestSandbox } from "../support/sandbox.ts";

/** Rewinds, with what the system tells of the pages that were written to, and without. */
const told = existsSync("/proc/self/pagemap");
const MIB = 2 ** 20;

const started: Sandbox[] = [];
afterEach(async () => {
  for (const sandbox of started.splice(0)) {
    sandbox.kill("the test is done");
    await sandbox.ended;
  }
});

async function start(guest: Partial<GuestOptions>, options: Partial<SandboxOptions> = {}): Promise<Sandbox> {
  const sandbox = await startTestSandbox(guest, options);
  started.push(sandbox);
  return sandbox;
}

/** Runs it and sees to it that it did, and that the memory is what it was. */
async function pristineAfter(sandbox: Sandbox, code: string): Promise<void> {
  const { result, verdict } = await runOn(sandbox, code);
  expect(result).toMatchObject({ status: "completed" });
  expect(verdict).toMatchObject({ state: "pristine" });
}

/** Puts a file behind each of the system's own nodes in Emscripten's table of names, by renames that fail. */
const BEHIND_SYSTEM_NAMES = `
import os
def bucket(folder, name):
    value = 0
    for character in name:
        value = ((value << 5) - value + ord(character)) & 0xffffffff
    return ((os.stat(folder).st_ino + value) & 0xffffffff) % 4096
home = "/home/pyodide"
names = {}
number = 0
while len(names) < 4000 and number < 60000:
    names.setdefault(bucket(home, f"p{number}"), f"p{number}")
    number += 1
planted = []
for folder in ("/", "/dev", "/home", "/lib", "/mnt", "/proc", "/proc/self"):
    if not os.path.isdir(folder):
        continue
    for entry in os.listdir(folder):
        name = names.get(bucket(folder, entry))
        if name is None or name in planted:
            continue
        open("first", "w").write("planted")
        os.rename("first", name)
        try: os.rename(os.path.join(folder, entry), os.path.join(folder, "zzz"))
        except OSError: pass
        planted.append(name)
planted
`;

const LARGE = `blob = bytearray(b"x") * (60 * ${MIB})`;
const SMALL = "x = 1";

test("a file that was entered behind the system's own names is gone", async () => {
  const sandbox = await start({ verifyRewind: true });
  const planted = await runOn(sandbox, BEHIND_SYSTEM_NAMES);
  expect(planted.verdict).toMatchObject({ state: "pristine" });
  const names = planted.result.result as string[];
  expect(names.length).toBeGreaterThan(10);
  const found = await runOn(
    sandbox,
    `import os\n[n for n in ${JSON.stringify(names)} if os.path.lexists(n) or os.path.lexists("/home/pyodide/" + n)]`,
  );
  expect(found.result.result).toEqual([]);
});

describe.each([true, false])("with mapMemory: %s", (mapMemory) => {
  test("the memory is what it was, whatever programs write to", async () => {
    const sandbox = await start({ mapMemory, verifyRewind: true });
    if (told) expect(sandbox.everyPage).toBe(mapMemory ? null : "memory is not to be mapped");
    const programs = [
      SMALL,
      `blob = bytearray(b"x") * (24 * ${MIB})`,
      SMALL,
      `blobs = [bytes([n % 255 + 1]) * ${MIB} for n in range(40)]; del blobs[::2]`,
      // Where nothing of Python's is: the stack's far end, and what lies above the heap.
      "import ctypes; ctypes.memset(5 * 2**20, 0xff, 2**20)",
      "import ctypes; ctypes.memset(30 * 2**20, 0xff, 2**20)",
      LARGE,
      SMALL,
      SMALL,
      LARGE,
    ];
    for (const code of programs) await pristineAfter(sandbox, code);
  });
});

test("only a sandbox that is to map memory may call the C library", () => {
  const permission = (mapMemory: boolean) =>
    sandboxCommand({
      guest: guestOptions({ mapMemory }),
      memoryMb: 64,
      isCompact: false,
      stackBytes: 2 ** 23,
    }).args.filter((arg) => arg.endsWith("-ffi"));
  expect(permission(false)).toEqual(["--deny-ffi"]);
  expect(permission(true)).toEqual([process.platform === "linux" ? "--allow-ffi" : "--deny-ffi"]);
});

test.skipIf(process.platform !== "linux")(
  "a compact sandbox has V8 spare memory, and is otherwise as any",
  async () => {
    const sandboxes = [await start({ hashBaseline: true }), await start({ hashBaseline: true }, { isCompact: true })];
    const commands = sandboxes.map(async ({ pid }) =>
      readFileSync(`/proc/${await innermostProcess(pid)}/cmdline`, "utf8").includes("--optimize-for-size"),
    );
    expect(await Promise.all(commands)).toEqual([false, true]);
    expect(sandboxes[1]?.baseline).toBe(sandboxes[0]?.baseline);
    for (const sandbox of sandboxes) await pristineAfter(sandbox, SMALL);
  },
);

test.skipIf(process.platform !== "linux")(
  "a file that cannot be mapped is refused before anything is mapped from it",
  async () => {
    const code = `import { MemoryMapping } from "file://${GUEST_DIR}memory/mapping.ts";
    for (const file of [Deno.execPath(), "/proc/self/status"]) {
      try { console.log(new MemoryMapping().openFile(file).bytes > 0); } catch (error) { console.log(error.message); }
    }`;
    const { stdout } = await promisify(execFile)(denoBinary(), ["eval", "--no-config", "--ext=ts", code]);
    expect(stdout).toBe("true\nmemory could not be mapped\n");
  },
);

describe.skipIf(!told)("where the system tells which pages were written to", () => {
  test("pages that were given back by age are seen when they are written to again, through whichever door", async () => {
    const sandbox = await start({ mapMemory: true, verifyRewind: true });
    const scattered = "block = bytearray(8 * 2**20)\nfor at in range(0, len(block), 4096): block[at] = 1";
    await pristineAfter(sandbox, scattered);
    const full = await linearMemoryBytes(sandbox);
    for (let rewinds = 0; rewinds < 80; rewinds++) await pristineAfter(sandbox, SMALL);
    expect(full - (await linearMemoryBytes(sandbox))).toBeGreaterThan(6 * MIB);
    const doors = [
      scattered,
      "import os; blocks = [os.urandom(60_000) for _ in range(40)]",
      "import sys; target = bytearray(2**20); sys.stdin.buffer.readinto(target)",
      "open('f', 'wb').write(b'x' * 2**20); target = bytearray(2**20); open('f', 'rb').readinto(target)",
      "import mmap; open('f', 'wb').write(b'x' * 2**20); f = open('f', 'r+b'); m = mmap.mmap(f.fileno(), 0); m[9] = 7; m.flush()",
      "import ctypes; ctypes.memset(5 * 2**20, 0xff, 2**20)",
      "def deep(n): return n and deep(n - 1)\ndeep(700)",
      "display({'a': 1}); print('x' * 300_000)",
      "import asyncio\nawait asyncio.sleep(0.001)",
      "raise SystemExit",
      LARGE,
    ];
    for (const code of [...doors, ...doors.toReversed()]) {
      const { verdict } = await runOn(sandbox, code, { stdin: "y".repeat(MIB), stream: true, onOutput: () => {} });
      expect({ code, ...verdict }).toMatchObject({ code, state: "pristine" });
    }
  }, 240_000);

  test("what a large program has written to is given back when those after it are small", async () => {
    const sandbox = await start({ mapMemory: true });
    await pristineAfter(sandbox, SMALL);
    const before = await linearMemoryBytes(sandbox);
    await pristineAfter(sandbox, LARGE);
    const full = await linearMemoryBytes(sandbox);
    expect(full - before).toBeGreaterThan(50 * MIB);
    await pristineAfter(sandbox, SMALL);
    expect(full - (await linearMemoryBytes(sandbox))).toBeGreaterThan(50 * MIB);
    await pristineAfter(sandbox, LARGE);
  });

  test("sandboxes share an image's memory", async () => {
    const [mapped, read] = [await start({ mapMemory: true }), await start({ mapMemory: false })];
    for (const sandbox of [mapped, read]) await pristineAfter(sandbox, SMALL);
    expect((await privateBytes(read)) - (await privateBytes(mapped))).toBeGreaterThan(10 * MIB);
  });

  test.for(["bubblewrap", "unshare", "setpriv", "none"] as const)(
    "%s around it does not hide that",
    async (tool, { skip }) => {
      const config = testConfig({ ISOLATION: tool === "none" ? "deno" : "auto" });
      const isolation = await detectIsolation(config, {
        readOnlyPaths: [GUEST_DIR, PYODIDE_DIR, config.CACHE_DIR],
        consider: (plan) => plan.tool === tool && (plan.identity !== "own-user" || tool === "setpriv"),
      });
      if (isolation.tool !== tool) skip(`${tool} does not work here`);
      const sandbox = await start({ mapMemory: true, verifyRewind: true }, { isolation });
      expect(sandbox.everyPage).toBeNull();
      for (const code of [SMALL, LARGE, SMALL]) await pristineAfter(sandbox, code);
    },
  );
});

/**
 * Pages of its linear memory that a sandbox has for itself. Of the whole process they could not be told: V8 compiles at moments of its
 * own choosing, and keeps some MiB for it.
 */
async function linearMemoryBytes({ pid }: Sandbox): Promise<number> {
  const entries = readFileSync(`/proc/${await innermostProcess(pid)}/smaps`, "utf8").split(
    /^(?=[0-9a-f]+-[0-9a-f]+ )/m,
  );
  // It begins where the image is mapped, and ends where nothing may be read or written.
  const first = entries.findIndex((entry) => /^.* rw-p .*\.image\n/.test(entry));
  expect(first).toBeGreaterThan(-1);
  const linear = entries.slice(first);
  const end = linear.findIndex((entry) => !/^\S+ rw-p /.test(entry));
  return linear.slice(0, end).reduce((sum, entry) => sum + privateDirty(entry), 0);
}

/** Memory that a sandbox shares with no other process and that no file has. */
async function privateBytes({ pid }: Sandbox): Promise<number> {
  const rollup = readFileSync(`/proc/${await innermostProcess(pid)}/smaps_rollup`, "utf8");
  return privateDirty(rollup);
}

/** In bytes. @param entry of `smaps`. */
function privateDirty(entry: string): number {
  return Number(/^Private_Dirty: +(\d+) kB$/m.exec(entry)?.[1]) * 1024;
}
