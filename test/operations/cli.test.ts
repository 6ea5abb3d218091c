import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync } from "node:fs";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";
import { makeWheel } from "../../src/packages/testing/wheels.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { TEST_CACHE_DIR } from "../support/config.ts";
import { cacheFolder } from "../support/environments.ts";
import { descendantsOf, isRunning } from "../support/processes.ts";
import { listening } from "../support/server-process.ts";
import { until } from "../support/until.ts";

const CLI = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const EXAMPLES = fileURLToPath(new URL("../../examples/", import.meta.url));

const dir = temporaryFolder("pyodide-express-cli");

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const running = new Set<ChildProcess>();
afterEach(() => {
  for (const child of running) child.kill("SIGKILL");
});

/** Starts a command with data of its own, and without the sources of packages that it could only wait for here. */
function start(args: readonly string[], env: Record<string, string> = {}): ChildProcess {
  const dataDir = mkdtempSync(path.join(dir, "data-"));
  const child = spawn(process.execPath, [CLI, ...args], {
    stdio: ["pipe", "pipe", "pipe"],
    env: {
      PATH: process.env.PATH,
      DATA_DIR: dataDir,
      CACHE_DIR: TEST_CACHE_DIR,
      POOL_SIZE: "1",
      PYODIDE_PACKAGES: "none",
      PYODIDE_INDEX_URL: dataDir,
      PACKAGE_INDEX_URL: "none",
      ...env,
    },
  });
  running.add(child);
  child.once("close", () => running.delete(child));
  return child;
}

/** Runs a command to its end. */
async function cli(args: readonly string[], env: Record<string, string> = {}, stdin = ""): Promise<Outcome> {
  const child = start(args, env);
  child.stdin?.on("error", () => {}).end(stdin);
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout as NodeJS.ReadableStream),
    text(child.stderr as NodeJS.ReadableStream),
    once(child, "close"),
  ]);
  return { code, stdout, stderr };
}

async function script(name: string, code: string): Promise<string> {
  const file = path.join(dir, name);
  await writeFile(file, code);
  return file;
}

describe("run", () => {
  test("prints what the code prints, and ends with 0", async () => {
    const expected = await readFile(`${EXAMPLES}log-report.expected.txt`, "utf8");
    expect(await cli(["run", `${EXAMPLES}log-report.py`])).toEqual({ code: 0, stdout: expected, stderr: "" });
  });

  test("keeps stdout and stderr apart, and prints the value of the last expression as JSON", async () => {
    const file = await script("value.py", 'import sys\nprint("out")\nprint("err", file=sys.stderr)\n{"a": [1, None]}');
    expect(await cli(["run", file])).toEqual({
      code: 0,
      stdout: 'out\n{\n  "a": [\n    1,\n    null\n  ]\n}\n',
      stderr: "err\n",
    });
  });

  test("a Python error ends with 1 and a traceback of the user's frames", async () => {
    const { code, stdout, stderr } = await cli(["run", await script("error.py", 'print("before")\n1 / 0')]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "before\n" });
    expect(stderr).toMatch(
      /^Traceback \(most recent call last\):\n[\s\S]*line 2[\s\S]*ZeroDivisionError: division by zero\n$/,
    );
  });

  test("a syntax error ends with 1", async () => {
    const { code, stderr } = await cli(["run", await script("syntax.py", "x = (")]);
    expect(code).toBe(1);
    expect(stderr).toContain("SyntaxError");
  });

  test("sys.exit with a status ends with 1, without one with 0", async () => {
    expect((await cli(["run", await script("exit3.py", "import sys; sys.exit(3)")])).code).toBe(1);
    expect((await cli(["run", await script("exit0.py", "import sys; sys.exit()")])).code).toBe(0);
  });

  test("--timeout stops code that hangs", async () => {
    const file = await script("hang.py", 'print("started", flush=True)\nwhile True: pass');
    const { code, stdout, stderr } = await cli(["run", file, "--timeout", "300"]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "started\n" });
    expect(stderr).toContain("Execution timed out after 300ms");
  });

  test("code that ends the interpreter is told so", async () => {
    const { code, stderr } = await cli(["run", await script("crash.py", "import ctypes\nctypes.string_at(2**31)")]);
    expect({ code, stderr }).toEqual({ code: 1, stderr: "the interpreter crashed and was replaced\n" });
  });

  test("--context becomes variables", async () => {
    const file = await script("context.py", "print(x + 1, y)");
    expect(await cli(["run", file, "--context", '{"x": 41, "y": "a b"}'])).toMatchObject({
      code: 0,
      stdout: "42 a b\n",
    });
  });

  test("stdin is what input() reads", async () => {
    const file = await script("stdin.py", "print(input()[::-1], input())");
    expect(await cli(["run", file], {}, "abc\ndef\n")).toMatchObject({ code: 0, stdout: "cba def\n" });
  });

  test("--trace tells each frame with its size and time on stderr, and nothing of the code", async () => {
    const file = await script("traced.py", "secret = 'not-in-the-trace'\nprint(len(secret))");
    const { code, stdout, stderr } = await cli(["run", file, "--trace"]);
    expect({ code, stdout }).toEqual({ code: 0, stdout: "16\n" });
    const frames = Array.from(
      stderr.matchAll(/^trace +(\d+\.\d) +(\d+\.\d) +(\d+) {2}([→←]) ([\w-]+) +(\d+)(?: {2}(.*))?$/gm),
      ([, ms, , , arrow, type, bytes, detail]) => ({
        ms: Number(ms),
        what: `${arrow} ${type}`,
        bytes: Number(bytes),
        detail,
      }),
    );
    expect(frames.map(({ what }) => what)).toEqual(
      expect.arrayContaining(["→ start", "← ready", "→ execute", "← result", "← idle"]),
    );
    expect(frames.map(({ ms }) => ms)).toEqual(frames.map(({ ms }) => ms).toSorted((a, b) => a - b));
    const last = frames.findLast(({ what }) => what === "→ execute");
    expect(last?.detail).toBe("stateless");
    expect(last?.bytes).toBeGreaterThan(60);
    expect(stderr).not.toContain("not-in-the-trace");
    expect((await cli(["run", file])).stderr).toBe("");
  });

  test("the file may be standard input", async () => {
    expect(await cli(["run", "-"], {}, "print(6 * 7)")).toMatchObject({ code: 0, stdout: "42\n" });
  });

  test.each([
    ["a file that is not there", ["run", "/nowhere/x.py"], "Cannot read /nowhere/x.py: ENOENT.\n"],
    ["a folder", ["run", "/"], "Cannot read /: EISDIR.\n"],
    ["a program", ["run", process.execPath], `${process.execPath} is not UTF-8.\n`],
    ["context that is no JSON", ["run", "-", "--context", "{x: 1}"], /^--context takes a JSON object/],
    ["context that is no object", ["run", "-", "--context", "[1]"], "Context must be an object (key-value pairs).\n"],
    [
      "context with an impossible name",
      ["run", "-", "--context", '{"a b": 1}'],
      "Context keys must be valid Python names.\n",
    ],
    [
      "a timeout that is no number",
      ["run", "-", "--timeout", "soon"],
      "Timeout must be a positive number (milliseconds).\n",
    ],
    ["a timeout of 0", ["run", "-", "--timeout", "0"], "Timeout must be a positive number (milliseconds).\n"],
    [
      "a timeout no timer can hold",
      ["run", "-", "--timeout", "3000000000"],
      "Timeout too large. Maximum: 300000ms (5 minutes).\n",
    ],
    ["no file", ["run"], /^Usage: /],
    ["two files", ["run", "a.py", "b.py"], /^Usage: /],
    ["an unknown option", ["run", "a.py", "--frobnicate"], /--frobnicate/],
  ])("%s ends with 1 and a message", async (_name, args, message) => {
    const { code, stdout, stderr } = await cli(args, {}, "1");
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    if (typeof message === "string") expect(stderr).toBe(message);
    else expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n {4}at /);
  });
});

describe("doctor", () => {
  test("tells versions, cache and isolation, and ends with 0", async () => {
    const { code, stdout } = await cli(["doctor"]);
    expect(code).toBe(0);
    for (const row of [
      /^node +v\d+/m,
      /^pyodide +\d+\.\d+\.\d+$/m,
      /^deno +\//m,
      /^python +3\.\d+/m,
      /^sandbox +ready in \d+ ms$/m,
      /^image +.*SHA-256/m,
      /^rewind +looks at /m,
      /^isolation: [\w-]+ +(not )?active: /m,
    ]) {
      expect(stdout).toMatch(row);
    }
    expect(stdout).toContain(TEST_CACHE_DIR);
  });

  test("tells which settings were worked out, and from what", async () => {
    const { code, stdout } = await cli(["doctor"], { POOL_SIZE: "0" });
    expect(code).toBe(0);
    expect(stdout).toMatch(/^POOL_SIZE +\d+ \(.*(processor|limit)/m);
    expect(stdout).toMatch(/^CORS_ORIGIN +\* \(no API keys\)$/m);
    expect(stdout).toMatch(/^settings +can be used$/m);
  });

  test("names a setting that serve would refuse", async () => {
    const { code, stdout } = await cli(["doctor"], { API_KEYS: "name:too-short-s3cret" });
    expect(code).toBe(0);
    const refused = await cli(["doctor"], { API_KEYS: "name:s3cret" });
    expect(refused.code).toBe(1);
    expect(refused.stdout).toMatch(/^settings +FAILED: API_KEYS, entry 1: /m);
    expect(stdout + refused.stdout).not.toContain("s3cret");
  });

  test("tells what each environment holds and where it came from, without building it", async () => {
    const PACKAGE_DIR = await mkdtemp(path.join(dir, "wheels-"));
    // In Pyodide's lock file there is another version.
    const wheel = await makeWheel({ name: "six", version: "0.9" });
    await writeFile(path.join(PACKAGE_DIR, wheel.filename), wheel.bytes);
    const settings = { PYODIDE_PACKAGES: "six,nowhere-to-be-found", PACKAGE_DIR, PYODIDE_INDEX_URL: PACKAGE_DIR };
    expect((await cli(["doctor"], settings)).stdout).toMatch(/^environment: default +not built yet/m);
    expect((await cli(["build"], settings)).code).toBe(0);
    const { stdout, code } = await cli(["doctor"], settings);
    expect(code).toBe(0);
    for (const row of [
      /^environment: default +1 packages, archive of [\d.]+ MiB, image of [\d.]+ MiB, built \S+ in \d+ ms/m,
      /^ {2}six +0\.9 from the package folder \(another version than Pyodide's lock file has\)$/m,
      /^ {2}nowhere-to-be-found +MISSING: /m,
    ]) {
      expect(stdout).toMatch(row);
    }
  });

  test("agrees with build where no package was available", async () => {
    const PACKAGE_DIR = await mkdtemp(path.join(dir, "empty-wheels-"));
    const CACHE_DIR = await cacheFolder();
    const settings = { PYODIDE_PACKAGES: "six,nowhere", PACKAGE_DIR, PYODIDE_INDEX_URL: PACKAGE_DIR, CACHE_DIR };
    expect(await cli(["build"], settings)).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^default: 0 packages/m),
    });
    const { stdout, code } = await cli(["doctor"], settings);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^environment: default +0 packages: none was available$/m);
    for (const name of ["six", "nowhere"])
      expect(stdout).toMatch(
        new RegExp(`^ {2}${name} +MISSING: .*the package folder.*the folder of Pyodide packages`, "m"),
      );
  });

  test("ends with 1 where the cache cannot be used", async () => {
    const file = await script("not-a-folder", "");
    const { code, stdout } = await cli(["doctor"], { CACHE_DIR: path.join(file, "cache") });
    expect(code).toBe(1);
    expect(stdout).toMatch(/^sandbox +FAILED: The cache folder .* cannot be written \(ENOTDIR\)/m);
  });
});

describe("serve", () => {
  test("serves until SIGTERM, then ends with 0 and leaves no sandbox behind", async () => {
    const child = start(["serve"], { PORT: "0" });
    const url = await listening(child);
    const response = await fetch(`${url}/api/execute-raw`, {
      method: "POST",
      headers: { "content-type": "text/plain" },
      body: "6 * 7",
    });
    expect(await response.json()).toMatchObject({ success: true, result: 42 });
    const below = descendantsOf(child.pid as number);
    expect(below.length).toBeGreaterThan(0);
    child.kill("SIGTERM");
    expect(await once(child, "close")).toEqual([0, null]);
    await until(() => !below.some(isRunning));
  });

  test("says first which settings it has worked out, and from what", async () => {
    const child = start(["serve"], { PORT: "0", POOL_SIZE: "0" });
    const lines: string[] = [];
    for await (const line of createInterface({ input: child.stdout as NodeJS.ReadableStream })) {
      lines.push(JSON.parse(line).msg);
      if (line.includes("Listening on")) break;
    }
    expect(lines[0]).toMatch(/^POOL_SIZE is \d+: .*(processor|limit)/);
    child.kill("SIGKILL");
    await once(child, "close");
  });

  test("a port that is taken ends with 1 and says what to do", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const { port } = other.address() as { port: number };
    try {
      const { code, stderr } = await cli(["serve"], { PORT: String(port), LOG_LEVEL: "warn" });
      expect({ code, stderr }).toEqual({
        code: 1,
        stderr: `Port ${port} is taken. Stop what uses it, or set PORT to another (0 picks a free one).\n`,
      });
    } finally {
      other.close();
    }
  });

  test("an address that is not this machine's ends with 1 and says what to do", async () => {
    const { code, stderr } = await cli(["serve"], { HOST: "192.0.2.1", PORT: "0", ALLOW_ANONYMOUS: "true" });
    expect(code).toBe(1);
    expect(stderr).toContain("192.0.2.1 is not an address of this machine. Set HOST to one that is.");
  });

  test("settings that cannot be used end with 1, each of them named", async () => {
    const { code, stdout, stderr } = await cli(["serve"], {
      PORT: "http",
      POOL_SIZE: "-1",
      LOG_LEVEL: "loud",
      EXECUTION_TIMEOUT_MS: "300001",
      ALLOW_ANONYMOUS: "perhaps",
      MAX_FILE_SIZE: "1.5",
    });
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(/^These settings cannot be used:\n/);
    for (const bad of [
      'PORT="http"',
      'POOL_SIZE="-1"',
      'LOG_LEVEL="loud"',
      'EXECUTION_TIMEOUT_MS="300001"',
      'ALLOW_ANONYMOUS="perhaps"',
      'MAX_FILE_SIZE="1.5"',
    ]) {
      expect(stderr).toContain(`\n  ${bad}: `);
    }
    expect(stderr).not.toMatch(/\n {4}at /);
    expect(stderr.trim().split("\n")).toHaveLength(7);
  });

  test("a folder that is only read and is not there ends with 1", async () => {
    const settings = { PACKAGE_DIR: "/nowhere", PYODIDE_INDEX_URL: "/nowhere/else" };
    const { code, stderr } = await cli(["serve"], settings);
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(
        /PACKAGE_DIR="\/nowhere": there is no such folder.*\n.*PYODIDE_INDEX_URL: there is no such folder/,
      ),
    });
  });

  test.skipIf(!existsSync("/proc/self"))("a data folder that cannot be made ends with 1", async () => {
    const { code, stderr } = await cli(["serve"], {
      DATA_DIR: "/proc/nowhere",
      LOG_DIR: "none",
      PYODIDE_INDEX_URL: dir,
    });
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringMatching(/\/proc\/nowhere.* cannot be/) });
  });

  test("names of variables that are nearly a setting's are warned of", async () => {
    const child = start(["serve"], { POOL_SZIE: "4", PORT: "0" });
    let said = "";
    for await (const line of createInterface({ input: child.stdout as NodeJS.ReadableStream })) {
      said += `${line}\n`;
      if (line.includes("Listening on")) break;
    }
    child.kill("SIGTERM");
    expect(said).toMatch(/"level":"warn".*"msg":"POOL_SZIE is no setting: is POOL_SIZE meant\?"/);
  });

  test("a cache folder that cannot be written ends with 1 and says what to do", async () => {
    const file = await script("in-the-way", "");
    const { code, stderr } = await cli(["serve"], {
      CACHE_DIR: path.join(file, "cache"),
      PORT: "0",
      LOG_LEVEL: "warn",
    });
    expect(code).toBe(1);
    expect(stderr).toMatch(/^The cache folder .* cannot be written \(ENOTDIR\)\. Make it writable, or set CACHE_DIR/);
  });
});

describe("usage", () => {
  test.each(["version", "--version"])("%s", async (command) => {
    const { code, stdout, stderr } = await cli([command]);
    expect({ code, stdout, stderr }).toEqual({
      code: 0,
      stdout: expect.stringMatching(/^pyodide-express \d+\.\d+\.\d+ \(Pyodide \d+\.\d+\.\d+, Node \d+\.\d+\.\d+\)\n$/),
      stderr: "",
    });
  });

  test.each([["frobnicate"], [""], ["toString"]])("%j is no command: 2", async (command) => {
    const { code, stdout, stderr } = await cli(command === "" ? [] : [command]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/^Usage: pyodide-express <command>/);
  });

  test.each([["help"], ["--help"]])("%s prints the usage: 0", async (command) => {
    const { code, stdout, stderr } = await cli([command]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/^Usage: pyodide-express <command>/);
  });
});

describe("audit verify", () => {
  test("ends with 1 where there is no security log to check, and says where it looked", async () => {
    const empty = await mkdtemp(path.join(dir, "empty-"));
    const none = path.join(dir, "nope");
    const file = await script("a-file", "");
    expect(await cli(["audit", "verify", empty])).toEqual({
      code: 1,
      stdout: "",
      stderr: `There is no security log in ${empty}.\n`,
    });
    expect(await cli(["audit", "verify", none])).toEqual({
      code: 1,
      stdout: "",
      stderr: `There is no security log in ${none}.\n`,
    });
    expect(await cli(["audit", "verify", file])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^Cannot read the security log in .*ENOTDIR\.\n$/),
    });
    expect(await cli(["audit", "verify"], { LOG_DIR: "none" })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("LOG_DIR is `none`"),
    });
  });
});
