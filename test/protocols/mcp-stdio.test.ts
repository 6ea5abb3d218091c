import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdtempSync, readdirSync, symlinkSync } from "node:fs";
import path from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { TEST_CACHE_DIR } from "../support/config.ts";
import { callMcp } from "../support/mcp-client.ts";
import { descendantsOf, isRunning } from "../support/processes.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const COMMAND = fileURLToPath(new URL("../../bin/pyodide-express.mjs", import.meta.url));
const MODULES = fileURLToPath(new URL("../../node_modules", import.meta.url));
const KEY = "a-key-of-alice-for-mcp";
const dir = temporaryFolder("pyodide-express-mcp-stdio");

/** As a host starts it: with few variables, and a folder for temporary files of the test's own. */
function environment(more: Record<string, string> = {}): Record<string, string> {
  return {
    PATH: process.env.PATH ?? "",
    TMPDIR: mkdtempSync(path.join(dir, "tmp-")),
    CACHE_DIR: TEST_CACHE_DIR,
    POOL_SIZE: "2",
    PYODIDE_PACKAGES: "none",
    PYODIDE_INDEX_URL: dir,
    PACKAGE_INDEX_URL: "none",
    ...more,
  };
}

const running = new Set<ChildProcess>();
afterEach(() => {
  for (const child of running) child.kill("SIGKILL");
});

function start(args: readonly string[] = [], env = environment()): ChildProcess {
  const child = spawn(process.execPath, [COMMAND, "mcp", ...args], { stdio: ["pipe", "pipe", "pipe"], env });
  running.add(child);
  child.once("close", () => running.delete(child));
  return child;
}

/** Sends lines, waits for so many answers, ends the input. */
async function converse(child: ChildProcess, lines: readonly (string | object)[], answers: number) {
  const stderr = text(child.stderr as NonNullable<ChildProcess["stderr"]>);
  let stdout = "";
  child.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
    stdout += chunk;
  });
  for (const line of lines) child.stdin?.write(`${typeof line === "string" ? line : JSON.stringify(line)}\n`);
  await until(() => stdout.split("\n").length > answers || child.exitCode !== null);
  child.stdin?.end();
  const [code] = child.exitCode === null ? await once(child, "exit") : [child.exitCode];
  // biome-ignore lint/suspicious/noExplicitAny: what a server sends is what the test is about to find out.
  const messages: any[] = stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
  return { code, messages, stderr: await stderr };
}

const INITIALIZE = {
  jsonrpc: "2.0",
  id: 0,
  method: "initialize",
  params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "raw", version: "1" } },
};
const run = (id: number, code: string) => ({
  jsonrpc: "2.0",
  id,
  method: "tools/call",
  params: { name: "run_python", arguments: { code } },
});

describe("with a server of its own", () => {
  test("the SDK's client works as by HTTP, and nothing is left of it afterwards", async () => {
    const env = environment();
    const transport = new StdioClientTransport({
      command: process.execPath,
      args: [COMMAND, "mcp"],
      env,
      cwd: env.TMPDIR as string,
      stderr: "pipe",
    });
    const client = new Client({ name: "test", version: "1" });
    await client.connect(transport as never);
    const pid = transport.pid ?? -1;
    try {
      expect((await client.listTools()).tools.length).toBe(13);
      expect((await callMcp(client, "run_python", { code: "print('hello')\n6 * 7" })).text).toBe("hello\n42");
      const session = (await callMcp(client, "session_create", {})).data.session.id;
      await callMcp(client, "run_python", { code: "x = 5\nopen('f.txt', 'w').write('ü')", session });
      expect((await callMcp(client, "run_python", { code: "x", session })).data.result).toBe(5);
      const uri = `pyodide://sessions/${session}/home/pyodide/f.txt`;
      expect((await client.readResource({ uri })).contents).toMatchObject([{ text: "ü" }]);
      const told: unknown[] = [];
      const step = await callMcp(
        client,
        "run_python",
        { code: "print('a')\ninput()", interactive: true },
        { onprogress: (one) => told.push(one) },
      );
      const results = [{ id: step.data.inputRequests[0].id, result: "typed" }];
      expect((await callMcp(client, "resume_python", { handle: step.data.handle, results })).data.result).toBe("typed");
      expect(told.length).toBeGreaterThan(0);
    } finally {
      await client.close();
    }
    await until(() => !isRunning(pid));
    // Its data were temporary.
    expect(readdirSync(env.TMPDIR as string)).toEqual([]);
  });

  test("ends with its input, and what runs with it; stdout is the protocol's alone", async () => {
    const child = start();
    const sandboxes = () => descendantsOf(child.pid ?? -1);
    const [{ code, messages, stderr }] = await Promise.all([
      converse(child, [INITIALIZE, run(1, "1 + 1"), run(2, "while True: pass")], 2),
      until(() => sandboxes().length > 0),
    ]);
    expect(code).toBe(0);
    expect(messages).toMatchObject([{ id: 0 }, { id: 1, result: { structuredContent: { result: 2 } } }]);
    expect(stderr).toBe("");
    await until(() => !sandboxes().some(isRunning));
  });

  test("lines that are no messages are answered, and texts may have what ends lines elsewhere", async () => {
    const separator = '{"jsonrpc":"2.0","id":"a\u2028b","method":"ping"}';
    const { code, messages } = await converse(start(), ["{", "5", "[]", "", { hello: 1 }, INITIALIZE, separator], 6);
    expect(code).toBe(0);
    const codes = messages.map(({ error }) => error?.code);
    expect(codes.filter((one) => one === -32700).length).toBe(2);
    expect(codes.filter((one) => one === -32600).length).toBe(2);
    expect(messages.find(({ id }) => id === "a\u2028b")?.result).toEqual({});
    expect(messages.find(({ id }) => id === 0)?.result.protocolVersion).toBe("2025-11-25");
  });

  test("a signal ends it; a DATA_DIR is kept", async () => {
    const DATA_DIR = path.join(dir, "kept");
    const ask = async (code: string) => {
      const child = start([], environment({ DATA_DIR }));
      child.stdin?.write(`${JSON.stringify(INITIALIZE)}\n${JSON.stringify(run(1, code))}\n`);
      let stdout = "";
      for await (const chunk of child.stdout ?? []) {
        stdout += chunk;
        if (stdout.includes('"id":1')) child.kill("SIGTERM");
      }
      return stdout;
    };
    await ask("open('note', 'w').write('still here')");
    expect(existsSync(DATA_DIR)).toBe(true);
    expect(await ask("open('note').read()")).toContain("still here");
  });

  test("settings that cannot be used are told on stderr", async () => {
    const child = start([], environment({ POOL_SIZE: "many" }));
    const { code, messages, stderr } = await converse(child, [INITIALIZE], 1);
    expect({ code, messages }).toEqual({ code: 1, messages: [] });
    expect(stderr).toContain("POOL_SIZE");
  });
});

describe("with a server elsewhere", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer({ API_KEYS: `alice:${KEY}`, POOL_SIZE: "2" });
  });
  afterAll(async () => await server?.stop(0));

  test("messages go there, with the key", async () => {
    const env = environment({ API_KEY: KEY });
    for (const url of [server.url, `${server.url}/`, `${server.url}/mcp`]) {
      const { code, messages } = await converse(start(["--url", url], env), [INITIALIZE, run(1, "2 * 3")], 2);
      expect(code).toBe(0);
      expect(messages).toMatchObject([{ id: 0 }, { id: 1, result: { structuredContent: { result: 6 } } }]);
    }
    // None of its own is started.
    expect(readdirSync(env.TMPDIR as string)).toEqual([]);
  });

  test("what runs is stopped when the input ends", async () => {
    const child = start(["--url", server.url], environment({ API_KEY: KEY }));
    const ended = converse(child, [INITIALIZE, run(1, "while True: pass")], 1);
    await ended;
    await until(() => server.executor.pool.status().busy === 0);
  });

  test("a wrong key, and a server that is not there, are errors of the requests", async () => {
    const wrong = await converse(
      start(["--url", server.url], environment({ API_KEY: "another-key-0123456789" })),
      [INITIALIZE],
      1,
    );
    expect(wrong.messages).toMatchObject([{ id: 0, error: { code: -32000, message: "Invalid API key" } }]);
    const nowhere = await converse(start(["--url", "http://127.0.0.1:9"]), [INITIALIZE], 1);
    expect(nowhere.messages).toMatchObject([
      { id: 0, error: { message: expect.stringContaining("cannot be reached") } },
    ]);
    const odd = await converse(start(["--url", "ftp://x"]), [], 0);
    expect([odd.code, odd.stderr]).toEqual([1, expect.stringContaining("--url must be")]);
  });
});

describe("the inspector", () => {
  /** As it lies in its own repository: published, it does not find its package.json. */
  const home = path.join(dir, "inspector");
  const INSPECTOR = path.join(home, "cli/build/index.js");
  beforeAll(() => {
    const published = path.join(MODULES, "@modelcontextprotocol/inspector-cli");
    cpSync(published, path.join(home, "cli"), { recursive: true });
    cpSync(path.join(published, "package.json"), path.join(home, "package.json"));
    symlinkSync(MODULES, path.join(home, "node_modules"));
  });

  const inspect = async (...args: string[]) => {
    const { stdout } = await promisify(execFile)(process.execPath, [INSPECTOR, ...args], { env: environment() });
    return JSON.parse(stdout.slice(stdout.indexOf("{")));
  };

  test("by stdio", async () => {
    const command = [process.execPath, COMMAND, "mcp"];
    expect((await inspect(...command, "--method", "tools/list")).tools).toHaveLength(13);
    const called = await inspect(
      ...command,
      "--method",
      "tools/call",
      "--tool-name",
      "run_python",
      "--tool-arg",
      "code=6 * 7",
    );
    expect(called).toMatchObject({ content: [{ type: "text", text: "42" }] });
  });

  test("by HTTP", async () => {
    const server = await startTestServer({ API_KEYS: `alice:${KEY}` });
    try {
      const to = [`${server.url}/mcp`, "--header", `Authorization: Bearer ${KEY}`];
      const listed = await inspect(...to, "--method", "resources/templates/list");
      expect(listed.resourceTemplates).toHaveLength(2);
      const arg = ["--tool-arg", "code=print('hi')"];
      const called = await inspect(...to, "--method", "tools/call", "--tool-name", "run_python", ...arg);
      expect(called).toMatchObject({ content: [{ text: "hi" }] });
    } finally {
      await server.stop(0);
    }
  });
});
