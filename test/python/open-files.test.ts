import { rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makeWheel } from "../../src/packages/testing/wheels.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { testConfig } from "../support/config.ts";
import { py } from "../support/engine.ts";
import { cacheFolder } from "../support/environments.ts";
import { isSampled } from "../support/scan.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const ALICE = { "x-api-key": "alice-key-0123456789abcdef" };
const LINES = Array.from({ length: 20_000 }, (_, index) => `line ${index}\n`).join("");

/** Opens files of its own when it is imported, and reads from them later: as matplotlib does with fonts. */
const OPENER = py`
  import os, zipfile
  _path = os.path.join(os.path.dirname(__file__), "data.txt")
  _file = open(_path)
  _file.readline()
  _raw = open(_path, "rb", buffering=0)
  _raw.seek(12345)
  _twin = os.dup(_raw.fileno())
  _library = open(zipfile.__file__, "rb")
  _null = open(os.devnull, "w")
  def next_line(): return _file.readline()
  def raw(count): return _raw.read(count).decode()
  def twin(count): return os.read(_twin, count).decode()
  def library(count): return list(_library.read(count))
  def ignore(text): return _null.write(text)
  `;

/** What no sandbox could open again. */
const LEAVERS: Readonly<Record<string, readonly [init: string, left: RegExp]>> = {
  writes: ["_file = open('/tmp/writes.txt', 'w')", /\/tmp\/writes\.txt, which is not there in a sandbox/],
  pipes: ["import os\n_pipe = os.pipe()", /pipe\[0\], which has no path/],
  forgets: ["import tempfile\n_file = tempfile.TemporaryFile()", /\/tmp\/\S+, which has no path/],
  lists: ["import os\n_listing = os.scandir(os.path.dirname(__file__))", /\/lists, which is not a file/],
  cycles: ["_file = open('/tmp/cycles.txt', 'w')\n_file.itself = _file\ndel _file", /^$/],
};

const folders: string[] = [];
let server: TestServer;

beforeAll(async () => {
  const folder = temporaryFolder("open-files");
  const wheels = [
    await makeWheel({
      name: "opener",
      version: "1.0",
      files: { "opener/__init__.py": OPENER, "opener/data.txt": LINES },
    }),
    await makeWheel({
      name: "installed",
      version: "1.0",
      files: { "installed/__init__.py": OPENER, "installed/data.txt": LINES },
    }),
    await makeWheel({ name: "another", version: "1.0" }),
  ];
  for (const [name, [init]] of Object.entries(LEAVERS)) {
    wheels.push(await makeWheel({ name, version: "1.0", files: { [`${name}/__init__.py`]: init } }));
  }
  for (const { filename, bytes } of wheels) await writeFile(path.join(folder, filename), bytes);
  const config = { DATA_DIR: testConfig().DATA_DIR, CACHE_DIR: await cacheFolder() };
  folders.push(folder, config.DATA_DIR, config.CACHE_DIR);
  server = await startTestServer({
    ...config,
    PYODIDE_PACKAGES: `opener,${Object.keys(LEAVERS).join()}`,
    PACKAGE_DIR: folder,
    POOL_SIZE: "2",
    SESSION_DURABILITY: "commit",
    API_KEYS: `alice:${ALICE["x-api-key"]}`,
  });
});
afterAll(async () => {
  await server?.stop(0);
  for (const folder of folders) await rm(folder, { recursive: true, force: true });
});

async function run(code: string, session?: string) {
  const { body } = await server.post("/api/execute", { code, session }, ALICE);
  expect({ code, error: body.error, stderr: body.stderr }).toEqual({ code, error: null, stderr: "" });
  if (session !== undefined) expect(body.session).toEqual({ id: session });
  return body.result;
}
const newSession = async (): Promise<string> => (await server.post("/api/sessions", {}, ALICE)).body.session.id;
const install = async (name: string) =>
  expect((await server.post("/api/install-package", { package: name }, ALICE)).body.success).toBe(true);

/** Ways to another sandbox. */
const MOVES: Readonly<Record<string, () => Promise<unknown>>> = {
  "other executions": async () => {
    const code = "import time; time.sleep(0.05)";
    // As many at once as there are sandboxes, until the session's was needed.
    do await Promise.all([1, 2].map(() => server.post("/api/execute", { code }, ALICE)));
    while (server.executor.pool.status().resident > 0);
  },
  "kill -9 of all sandboxes": async () => {
    const sandboxes = server.executor.pool.sandboxes();
    for (const { pid } of sandboxes) process.kill(pid, "SIGKILL");
    await Promise.all(sandboxes.map(({ ended }) => ended));
  },
};
const moves = Object.entries(MOVES);

describe("files that an environment's packages have open in its image", () => {
  test("are open where they were in every execution, whatever the one before did to them", async () => {
    const code = py`
      import opener
      first = [opener.next_line(), opener.next_line(), opener.raw(6), opener.twin(6), opener.raw(2), opener.library(4), opener.ignore("x")]
      import os
      os.close(opener._twin); opener._file.close(); os.lseek(opener._raw.fileno(), 0, 0); open("/tmp/other", "w")
      first`;
    const at = (from: number, count: number) => LINES.slice(from, from + count);
    const expected = ["line 1\n", "line 2\n", at(12345, 6), at(12351, 6), at(12357, 2), [34, 34, 34, 10], 1];
    for (let round = 0; round < 4; round++) expect(await run(code)).toEqual(expected);
  });

  test("can be read to their end", async () => {
    const code =
      "import opener\n[len(opener._file.read()), opener.raw(10**6)[-8:], len(opener._library.read()) > 10**4]";
    expect(await run(code)).toEqual([LINES.length - "line 0\n".length, "e 19999\n", true]);
  });

  test.each(moves)("go on in a session after %s", async (_, move) => {
    const id = await newSession();
    expect(await run("import opener\n[opener.next_line(), opener.raw(5)]", id)).toEqual([
      "line 1\n",
      LINES.slice(12345, 12350),
    ]);
    await move();
    expect(await run("opener.next_line()", id)).toBe("line 2\n");
    await move();
    expect(await run("[opener.next_line(), opener.twin(3), opener.raw(3)]", id)).toEqual([
      "line 3\n",
      LINES.slice(12350, 12353),
      LINES.slice(12353, 12356),
    ]);
  });

  test("go on in each fork by itself", async () => {
    const id = await newSession();
    await run("import opener\nopener.next_line()", id);
    const fork = (await server.post(`/api/sessions/${id}/fork`, {}, ALICE)).body.session.id;
    for (const line of [2, 3])
      for (const each of [id, fork]) expect(await run("opener.next_line()", each)).toBe(`line ${line}\n`);
  });

  test.each(Object.entries(LEAVERS))(
    "of which there is none in a sandbox (%s): the build says so, and goes without the module",
    async (name, [, left]) => {
      const { body } = await server.get("/api/environments", ALICE);
      const { warnings } = body.environments.find(({ name }: { name: string }) => name === "default");
      const start = `The image of the environment "default" goes without ${name}: importing it leaves a file open that no sandbox has: `;
      const warning = warnings.find((text: string) => text.includes(` ${name}:`));
      if (left.source === "^$") expect(warning).toBeUndefined();
      else {
        expect(warning).toContain(start);
        expect(warning.slice(start.length)).toMatch(left);
      }
      await run(`import ${name}`);
      await run(`import ${name}`, await newSession());
    },
  );
});

/** What is opened, and what is read from it after each move: [code, result]. */
const OPEN: Readonly<Record<string, readonly [open: string, reads: readonly (readonly [string, unknown])[]]>> = {
  "a file of a package": [
    "import sys\nf = open(next(p for p in sys.path if p.endswith('environment/site-packages')) + '/opener/data.txt'); f.readline()",
    [
      ["f.readline()", "line 1\n"],
      ["f.seek(0); f.readline()", "line 0\n"],
    ],
  ],
  "a file of the standard library": [
    "import zipfile\nf = open(zipfile.__file__, 'rb', buffering=0); f.read(2)",
    [
      ["f.read(2).decode()", '"\n'],
      ["[f.seek(0, 2) > 10**4, f.read()]", [true, { type: "bytes" }]],
    ],
  ],
  "our own modules": [
    "f = open('/lib/importlib_bootstrap/sandbox_runner/device.py'); f.read(3)",
    [["f.readline()[:3]", "The"]],
  ],
  "a temporary file": [
    "import tempfile, os\nf = tempfile.TemporaryFile('w+'); f.write('one\\ntwo\\n'); f.flush(); g = os.dup(f.fileno()); f.seek(4)",
    [
      ["[f.read(), os.fstat(g).st_size]", ["two\n", 8]],
      ["f.write('three'); f.flush(); [os.lseek(g, 0, 1), os.pread(g, 100, 0).decode()]", [13, "one\ntwo\nthree"]],
    ],
  ],
  "a file deleted while it is open twice": [
    "import os\nf = open('gone', 'w+'); f.write('abcdef'); f.flush(); g = open('gone'); g.read(2); os.remove('gone'); open('gone', 'w').write('another')",
    [
      ["[g.read(), open('gone').read(), f.tell()]", ["cdef", "another", 6]],
      ["f.write('gh'); f.flush(); g.read()", "gh"],
      ["f.close(); g.close(); os.listdir('.')", ["gone"]],
    ],
  ],
  "a pipe with something in it": [
    "import os\nr, w = os.pipe(); r2 = os.dup(r); os.write(w, b'abc' * 5000); os.read(r, 1)",
    [
      ["os.read(r, 3).decode() + os.read(r2, 3).decode()", "bcabca"],
      ["os.close(r); os.write(w, b'!'); len(os.read(r2, 10**5))", 15000 - 7 + 1],
      ["os.close(r2); os.close(w); fresh = os.pipe(); os.write(fresh[1], b'x'); os.read(fresh[0], 9).decode()", "x"],
    ],
  ],
  "a file outside the folders that are kept": [
    "f = open('/elsewhere.txt', 'w+'); f.write('abc'); f.flush()",
    [["f.seek(1); [f.read(), f.write('d')]", ["bc", 1]]],
  ],
  "a folder half listed": [
    "import os\nos.mkdir('many')\nfor i in range(40): open(f'many/{i:02}', 'w').close()\nd = os.scandir('many'); first = [next(d).name for _ in range(20)]",
    [
      ["first += [next(d).name for _ in range(10)]; open('many/new', 'w').close(); len(first)", 30],
      ["sorted(first + [e.name for e in d]) == [f'{i:02}' for i in range(40)]", true],
    ],
  ],
  "a deleted folder": [
    "import os\nos.mkdir('d'); fd = os.open('d', os.O_RDONLY); os.rmdir('d')",
    [["[os.listdir('.'), os.close(fd)]", [[], null]]],
  ],
  "a device": [
    "f = open('/dev/null', 'w'); r = open('/dev/urandom', 'rb', buffering=0)",
    [["[f.write('x'), len(r.read(5))]", [1, 5]]],
  ],
  "files to append to and to write": [
    "a = open('a', 'a'); w = open('w', 'w'); a.write('1'); w.write('1'); a.flush(); w.flush()",
    [
      ["a.write('2'); w.write('2'); a.flush(); w.flush(); [open('a').read(), open('w').read()]", ["12", "12"]],
      [
        "w.seek(0); a.write('3'); w.write('3'); a.close(); w.close(); [open('a').read(), open('w').read()]",
        ["123", "32"],
      ],
    ],
  ],
};

const KINDS = Object.entries(OPEN).map(([name, kind], index) => [name, kind, index] as const);
describe.each(KINDS)("a session that has %s open", (_, [open, reads], index) => {
  const sampled = moves.filter((_, move) => isSampled(index, move, moves.length));
  test.each(sampled)("goes on after %s", async (_, move) => {
    const id = await newSession();
    await run(`${open}; None`, id);
    for (const [code, result] of reads) {
      await move();
      const value = await run(code, id);
      if (code.includes("f.seek(0, 2)")) expect(value[0]).toBe(true);
      else expect(value).toEqual(result);
    }
  });

  test("can be forked, and each goes on by itself", async () => {
    const id = await newSession();
    await run(`${open}; None`, id);
    const fork = (await server.post(`/api/sessions/${id}/fork`, {}, ALICE)).body.session.id;
    for (const [code] of reads) expect(await run(code, fork)).toEqual(await run(code, id));
  });
});

test("four sessions with an open file of a package on two sandboxes lose nothing", async () => {
  const ids = await Promise.all([1, 2, 3, 4].map(newSession));
  await Promise.all(ids.map((id, i) => run(`import opener\nx = ${i}\nf = open(opener._path)\nopener.next_line()`, id)));
  expect(await Promise.all(ids.map((id) => run("[x, f.readline(), opener.next_line()]", id)))).toEqual(
    ids.map((_, i) => [i, "line 0\n", "line 2\n"]),
  );
});

describe("files of packages that the caller has installed", () => {
  test("go on after moves, after another package is installed, and are stale when theirs is gone", async () => {
    await install("installed");
    const id = await newSession();
    expect(await run("import installed\ninstalled.next_line()", id)).toBe("line 1\n");
    let line = 2;
    for (const [, move] of moves) {
      await move();
      expect(await run("installed.next_line()", id)).toBe(`line ${line++}\n`);
    }
    await install("another");
    expect(await run("import another\n[installed.next_line(), installed.raw(5)]", id)).toEqual([
      `line ${line++}\n`,
      LINES.slice(12345, 12350),
    ]);
    await (MOVES["other executions"] as () => Promise<unknown>)();
    expect(await run("[installed.next_line(), installed.twin(5)]", id)).toEqual([
      `line ${line++}\n`,
      LINES.slice(12350, 12355),
    ]);
    await server.post("/api/reset", {}, ALICE);
    await install("another");
    for (const move of [() => {}, MOVES["other executions"] as () => Promise<unknown>]) {
      await move();
      const code = "import another\ntry: installed.raw(1)\nexcept OSError as error: said = str(error)\nsaid";
      expect(await run(code, id)).toMatch(/Stale file handle/);
    }
  });
});
