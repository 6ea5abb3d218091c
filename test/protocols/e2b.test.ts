import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { AuthenticationError, NotFoundError, Sandbox, SandboxNotFoundError, TimeoutError } from "@e2b/code-interpreter";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ProtocolOptions } from "../../src/http/protocol.ts";
import { e2b } from "../../src/protocols/e2b/e2b.ts";
import { until } from "../support/until.ts";
import { ALICE, BOB, type E2bServer, startE2bServer } from "./e2b-sdk.ts";

let server: E2bServer;

beforeAll(async () => {
  server = await startE2bServer();
});
afterAll(async () => await server.stop(0));

const ofSandbox = (id: string, port = 49999) => ({ "e2b-sandbox-id": id, "e2b-sandbox-port": String(port) });
/** Of a stream, whose status says nothing. */
const isError = (text: string) => text.includes('"error"');
const forever = "while True: pass";

describe("code", () => {
  test("runs in a sandbox that keeps its names", async () => {
    const sandbox = await server.sandbox();
    await sandbox.runCode("x = 1");
    const seen: string[] = [];
    const execution = await sandbox.runCode("import sys; x += 1; print('out'); print('err', file=sys.stderr); x", {
      onStdout: ({ line }) => void seen.push(line),
      onStderr: ({ line }) => void seen.push(line),
      onResult: ({ text }) => void seen.push(String(text)),
    });
    expect(execution).toMatchObject({ text: "2", executionCount: 2, logs: { stdout: ["out\n"], stderr: ["err\n"] } });
    expect(seen).toEqual(["out\n", "err\n", "2"]);
  });

  test("that fails is an error with name, value and traceback", async () => {
    const { error, results } = await (await server.sandbox()).runCode("1 +\n1/0");
    expect(error).toMatchObject({ name: "SyntaxError" });
    expect(results).toEqual([]);
    const printing = await (await server.sandbox()).runCode("import sys; print('own', file=sys.stderr); 1/0");
    expect(printing.logs.stderr).toEqual(["own\n"]);
    const failed = await (await server.sandbox()).runCode("def f():\n  return nothing\nf()");
    expect(failed.error).toMatchObject({ name: "NameError", value: "name 'nothing' is not defined" });
    expect(failed.error?.traceback).toContain("line 2, in f");
  });

  test.each([
    ["'text'", { text: "text", isMainResult: true, extra: {} }],
    ['"it\'s"', { text: "it's" }],
    ["'\\''", { text: "'" }],
    ["[1, 'a']", { text: "[1, 'a']" }],
    ["from IPython.display import HTML; HTML('<b>x</b>')", { html: "<b>x</b>" }],
    ["from IPython.display import Markdown; Markdown('# x')", { markdown: "# x" }],
    ["from IPython.display import Latex; Latex('$x$')", { latex: "$x$" }],
    ["from IPython.display import Javascript; Javascript('1')", { javascript: "1" }],
    [
      "from IPython.display import SVG; SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"></svg>')",
      { svg: expect.stringContaining("<svg") },
    ],
    ["from IPython.display import JSON; JSON({'a': [1]})", { json: { a: [1] } }],
    [
      "class C:\n  def _repr_mimebundle_(self, **_): return {'text/plain': 'c', 'application/x-own': 'own'}\nC()",
      { text: "c", raw: expect.objectContaining({ extra: { "application/x-own": "own" } }) },
    ],
  ])("%s is a result as E2B has it", async (code, expected) => {
    const { results, error } = await (await server.sandbox()).runCode(code);
    expect(error).toBeUndefined();
    expect(results).toEqual([expect.objectContaining(expected)]);
  });

  test("displays are results before the main one, and None is none", async () => {
    const { results } = await (await server.sandbox()).runCode("display(1); display('two'); 3");
    expect(results.map(({ text, isMainResult }) => [text, isMainResult])).toEqual([
      ["1", false],
      ["two", false],
      ["3", true],
    ]);
    expect((await (await server.sandbox()).runCode("None")).results).toEqual([]);
  });

  test("has variables of the sandbox, and of one execution", async () => {
    const sandbox = await server.sandbox({ envs: { A: "sandbox", B: "sandbox" } });
    const code = "import os; [os.environ.get(n) for n in 'ABC']";
    expect((await sandbox.runCode(code, { envs: { B: "run", C: "run" } })).text).toBe("['sandbox', 'run', 'run']");
    expect((await sandbox.runCode(code)).text).toBe("['sandbox', 'sandbox', None]");
  });

  test("is in E2B's home folder, which commands are in whatever code does", async () => {
    const sandbox = await server.sandbox();
    const where = "import os, pathlib; os.getcwd(), os.path.expanduser('~/a'), str(pathlib.Path('a').absolute())";
    const home = "('/home/user', '/home/user/a', '/home/user/a')";
    expect((await sandbox.runCode(where)).text).toBe(home);
    await sandbox.pause();
    await sandbox.connect();
    expect((await sandbox.runCode(where)).text).toBe(home);
    await sandbox.runCode("os.mkdir('sub'); os.chdir('sub')");
    expect((await sandbox.runCode("os.getcwd()")).text).toBe("/home/user/sub");
    expect((await sandbox.commands.run("pwd; python -c 'import os; print(os.getcwd())'")).stdout).toBe(
      "/home/user\n/home/user\n",
    );
    expect((await sandbox.commands.run("pwd", { cwd: "sub" })).stdout).toBe("/home/user/sub\n");
    // As it was, for the next cell.
    expect((await sandbox.runCode("os.getcwd()")).text).toBe("/home/user/sub");
    const [fork] = await sandbox.fork();
    if (!(fork instanceof Sandbox)) throw fork;
    expect((await fork.runCode("os.getcwd()")).text).toBe("/home/user/sub");
  });

  test.each(["python", "python3", "py", "Python"])("has %s as its language", async (language) => {
    expect((await (await server.sandbox()).runCode("1", { language })).text).toBe("1");
  });

  test("in another language is refused", async () => {
    const sandbox = await server.sandbox();
    await expect(sandbox.runCode("1", { language: "js" })).rejects.toThrow("400");
    const headers = ofSandbox(sandbox.sandboxId);
    const refused = await server.ask("/execute", { method: "POST", body: { code: "1", language: "bash" }, headers });
    expect(refused).toMatchObject({
      status: 400,
      text: 'The language "bash" is not available here: this server runs Python.',
    });
  });

  test("that says nothing has its reply's head at once: the SDK counts its time from there", async () => {
    const { sandboxId } = await server.sandbox();
    const leave = new AbortController();
    const response = await fetch(`${server.url}/execute`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-api-key": ALICE, ...ofSandbox(sandboxId) },
      body: JSON.stringify({ code: forever }),
      signal: leave.signal,
    });
    const first = response.body?.getReader().read();
    // Before anything else, which a keepalive would be.
    const head = server.ask("/health").then(() => "head");
    expect(await Promise.race([head, first?.then(({ value }) => String(value))])).toBe("head");
    leave.abort();
    await first?.catch(() => {});
    expect((await (await Sandbox.connect(sandboxId, server.connection())).runCode("1")).text).toBe("1");
  });

  test("whose output is beyond the bound says so, once", async () => {
    const sandbox = await server.sandbox();
    const { logs, error } = await sandbox.runCode("for _ in range(3): print('x' * 1_000_000)");
    expect(error).toBeUndefined();
    expect(logs.stdout.join("")).toHaveLength(1024 * 1024);
    expect(logs.stderr).toEqual([expect.stringMatching(/^\[Output was cut: .* 1 MiB .*\]\n$/)]);
    const line = "python -c \"print('x' * 3_000_000)\"";
    expect((await sandbox.commands.run(line)).stderr).toBe(logs.stderr.join(""));
    expect((await sandbox.runCode("print('x')")).logs.stderr).toEqual([]);
  });

  test("is interrupted when its client goes away, and the sandbox goes on", async () => {
    const sandbox = await server.sandbox();
    await sandbox.runCode("x = 1");
    await expect(sandbox.runCode(`print('begun', flush=True)\n${forever}`, { timeoutMs: 500 })).rejects.toThrow(
      TimeoutError,
    );
    expect((await sandbox.runCode("x")).text).toBe("1");
  });

  test("ends with its sandbox, which the SDK tells from a lost connection", async () => {
    const sandbox = await server.sandbox();
    const begun = Promise.withResolvers<void>();
    const running = sandbox.runCode(`print('begun', flush=True)\n${forever}`, { onStdout: () => begun.resolve() });
    const refused = expect(running).rejects.toThrow(/sandbox was killed while the request was in progress/);
    await begun.promise;
    expect(await sandbox.kill()).toBe(true);
    await refused;
    expect(await sandbox.isRunning()).toBe(false);
    // Nothing of its reply has been sent yet.
    const silent = await server.sandbox();
    const unheard = expect(silent.runCode(forever)).rejects.toThrow(
      /sandbox was killed while the request was in progress/,
    );
    await until(async () => (await server.ask(`/api/sessions/${silent.sandboxId}`)).text.includes('"state":"running"'));
    expect(await silent.kill()).toBe(true);
    await unheard;
  });
});

describe("contexts", () => {
  test("have names of their own over one set of files", async () => {
    const sandbox = await server.sandbox();
    await sandbox.runCode("x = 1; open('shared', 'w').write('s')");
    const context = await sandbox.createCodeContext();
    expect((await sandbox.runCode("x", { context })).error).toMatchObject({ value: "name 'x' is not defined" });
    const execution = await sandbox.runCode("x = 2; open('shared').read()", { context });
    expect(execution).toMatchObject({ text: "s", executionCount: 2 });
    expect((await sandbox.runCode("x")).text).toBe("1");
    await sandbox.restartCodeContext(context);
    expect((await sandbox.runCode("x", { context })).error?.name).toBe("NameError");
    await sandbox.restartCodeContext("default");
    expect((await sandbox.runCode("x")).error?.name).toBe("NameError");
    expect(await sandbox.files.read("shared")).toBe("s");
  });

  test("are listed, with their folder, and deleted", async () => {
    const sandbox = await server.sandbox();
    const [byDefault] = await sandbox.listCodeContexts();
    expect(byDefault).toEqual({ id: "default", language: "python", cwd: "/home/user" });
    const context = await sandbox.createCodeContext({ cwd: "/home/user/project", language: "python" });
    expect(await sandbox.listCodeContexts()).toEqual([byDefault, context]);
    expect((await sandbox.runCode("import os; os.getcwd()", { context })).text).toBe("/home/user/project");
    await sandbox.removeCodeContext(context.id);
    expect(await sandbox.listCodeContexts()).toEqual([byDefault]);
    await expect(sandbox.runCode("1", { context })).rejects.toThrow(NotFoundError);
    await expect(sandbox.removeCodeContext(context.id)).rejects.toThrow(`Context ${context.id} not found`);
    await expect(sandbox.restartCodeContext("nothing")).rejects.toThrow(NotFoundError);
  });

  test("and a language together are refused, in E2B's words", async () => {
    const { sandboxId } = await server.sandbox();
    const body = { code: "1", context_id: "default", language: "python" };
    const refused = await server.ask("/execute", { method: "POST", body, headers: ofSandbox(sandboxId) });
    expect(refused).toMatchObject({ status: 400, text: "Only one of context_id or language can be provided" });
  });
});

describe("sandboxes", () => {
  test("are described, with what their creator said", async () => {
    const sandbox = await server.sandbox({ metadata: { user: "u 1&2" }, timeoutMs: 60_000 });
    const info = await sandbox.getInfo();
    expect(info).toMatchObject({
      sandboxId: sandbox.sandboxId,
      templateId: "code-interpreter-v1",
      metadata: { user: "u 1&2" },
      state: "running",
      lifecycle: { onTimeout: "kill", autoResume: false },
    });
    expect(info.endAt.getTime() - info.startedAt.getTime()).toBe(60_000);
    expect(await sandbox.isRunning()).toBe(true);
    expect(await sandbox.getMetrics()).toEqual([expect.objectContaining({ cpuCount: 1 })]);
    expect(await sandbox.getMetrics({ end: new Date(Date.now() - 60_000) })).toEqual([]);
  });

  test("are listed by metadata and state, part by part", async () => {
    const metadata = { group: `of this test & ${Math.random()}` };
    const made: string[] = [];
    for (let n = 0; n < 3; n++) made.push((await server.sandbox({ metadata })).sandboxId);
    await Sandbox.pause(made[1] as string, server.connection());
    const listed = async (options: object) => {
      const paginator = Sandbox.list({ ...server.connection(), ...options });
      const pages: string[][] = [];
      while (paginator.hasNext) pages.push((await paginator.nextItems()).map(({ sandboxId }) => sandboxId));
      return pages;
    };
    const [first, second, third] = made.toReversed();
    expect((await listed({ query: { metadata } })).flat().sort()).toEqual([...made].sort());
    expect((await listed({ query: { metadata }, limit: 2 })).map(({ length }) => length)).toEqual([2, 1]);
    expect(await listed({ query: { metadata, state: ["paused"] } })).toEqual([[second]]);
    expect((await listed({ query: { metadata, state: ["running"] } })).flat().sort()).toEqual([first, third].sort());
    expect((await listed({ query: { metadata: { group: "other" } } })).flat()).toEqual([]);
    const older = await server.ask(
      `/sandboxes?metadata=${encodeURIComponent(new URLSearchParams(metadata).toString())}`,
    );
    expect((older.body as { sandboxID: string }[]).map(({ sandboxID }) => sandboxID).sort()).toEqual(
      [first, third].sort(),
    );
  });

  test("end at their time, used or not", async () => {
    const sandbox = await server.sandbox({ timeoutMs: 1000 });
    const ends = Date.now() + 1000;
    const running = sandbox.runCode(forever);
    await expect(running).rejects.toThrow(/sandbox was killed|sandbox timeout/);
    expect(Date.now()).toBeGreaterThanOrEqual(ends - 50);
    await expect(sandbox.getInfo()).rejects.toThrow(SandboxNotFoundError);
    await expect(sandbox.runCode("1")).rejects.toThrow(TimeoutError);
    expect(await sandbox.kill()).toBe(false);
  });

  test("have another end when that is set, also while code runs", async () => {
    const sandbox = await server.sandbox({ timeoutMs: 60_000 });
    const running = sandbox.runCode("import time; time.sleep(1); 'done'");
    await sandbox.setTimeout(3_600_000);
    expect((await sandbox.getInfo()).endAt.getTime()).toBeGreaterThan(Date.now() + 3_000_000);
    expect((await running).text).toBe("done");
    expect((await sandbox.getInfo()).endAt.getTime()).toBeGreaterThan(Date.now() + 3_000_000);
    await server.ask(`/sandboxes/${sandbox.sandboxId}/refreshes`, { method: "POST", body: { duration: 5 } });
    expect((await sandbox.getInfo()).endAt.getTime()).toBeGreaterThan(Date.now() + 3_000_000);
    await sandbox.setTimeout(30_000);
    expect((await sandbox.getInfo()).endAt.getTime()).toBeLessThan(Date.now() + 31_000);
    await Sandbox.connect(sandbox.sandboxId, { ...server.connection(), timeoutMs: 5_000 });
    expect((await sandbox.getInfo()).endAt.getTime()).toBeGreaterThan(Date.now() + 20_000);
  });

  test("that are paused run nothing until they are resumed", async () => {
    const sandbox = await server.sandbox();
    await sandbox.runCode("x = 41");
    expect(await sandbox.pause()).toBe(true);
    expect(await sandbox.pause()).toBe(false);
    expect((await server.ask(`/sandboxes/${sandbox.sandboxId}/pause`, { method: "POST" })).status).toBe(409);
    expect(await sandbox.isRunning()).toBe(false);
    await expect(sandbox.runCode("x")).rejects.toThrow(TimeoutError);
    await expect(sandbox.files.read("x")).rejects.toThrow(TimeoutError);
    await expect(sandbox.setTimeout(1000)).rejects.toThrow("paused");
    expect((await sandbox.getInfo()).state).toBe("paused");
    const again = await Sandbox.connect(sandbox.sandboxId, server.connection());
    expect((await again.runCode("x + 1")).text).toBe("42");
    expect((await server.ask(`/sandboxes/${sandbox.sandboxId}/resume`, { method: "POST", body: {} })).status).toBe(409);
    await sandbox.pause();
    const resumed = await server.ask(`/sandboxes/${sandbox.sandboxId}/resume`, {
      method: "POST",
      body: { timeout: 60 },
    });
    expect(resumed).toMatchObject({ status: 201, body: { sandboxID: sandbox.sandboxId } });
  });

  test("are paused while code runs, which is interrupted", async () => {
    const sandbox = await server.sandbox();
    const begun = Promise.withResolvers<void>();
    const running = sandbox.runCode(`x = 7\nprint('begun', flush=True)\n${forever}`, {
      onStdout: () => begun.resolve(),
    });
    const refused = expect(running).rejects.toThrow(TimeoutError);
    await begun.promise;
    expect(await sandbox.pause()).toBe(true);
    await refused;
    await sandbox.connect();
    expect((await sandbox.runCode("x")).text).toBe("7");
  });

  test("are paused at their end where that was asked for, and resumed by traffic", async () => {
    const lifecycle = { onTimeout: "pause" as const, autoResume: false };
    const asleep = await server.sandbox({ timeoutMs: 500, lifecycle });
    const woken = await server.sandbox({ timeoutMs: 500, lifecycle: { ...lifecycle, autoResume: true } });
    await until(async () => (await woken.getInfo()).state === "paused" && (await asleep.getInfo()).state === "paused");
    await expect(asleep.runCode("1")).rejects.toThrow(TimeoutError);
    await woken.setTimeout(60_000).catch(() => {});
    expect((await woken.runCode("1")).text).toBe("1");
    await asleep.connect({ timeoutMs: 60_000 });
    expect((await asleep.runCode("2")).text).toBe("2");
  });

  test("are forked, each going on by itself", async () => {
    const sandbox = await server.sandbox({ metadata: { a: "b" } });
    await sandbox.runCode("x = 1");
    const forks = await sandbox.fork({ count: 2 });
    const [one, two] = forks as [Sandbox, Sandbox];
    await one.runCode("x += 10");
    expect((await one.runCode("x")).text).toBe("11");
    expect((await two.runCode("x")).text).toBe("1");
    expect((await two.getInfo()).metadata).toEqual({ a: "b" });
    expect(new Set([sandbox, one, two].map(({ sandboxId }) => sandboxId)).size).toBe(3);
    for (const count of [0, 101, 1.5, "2"])
      expect(
        await server.ask(`/sandboxes/${sandbox.sandboxId}/fork`, { method: "POST", body: { count } }),
      ).toMatchObject({ status: 400, body: { code: 400 } });
  });

  test("are made of snapshots, which outlive the sandbox they are of", async () => {
    const sandbox = await server.sandbox({ envs: { A: "1" } });
    await sandbox.runCode("x = 1; open('kept', 'w').write('k')");
    const named = await sandbox.createSnapshot({ name: "of-this-test" });
    const { snapshotId } = await sandbox.createSnapshot();
    expect(named.names).toEqual(["of-this-test:default"]);
    expect(await sandbox.listSnapshots().nextItems()).toHaveLength(2);
    expect(await Sandbox.listSnapshots({ ...server.connection(), name: "of-this-test" }).nextItems()).toEqual([named]);
    await sandbox.runCode("x = 2");
    await sandbox.kill();
    for (const template of [snapshotId, "of-this-test", "of-this-test:default"]) {
      const made = await server.sandbox({ template, envs: { B: "2" } });
      expect((await made.runCode("import os; x, os.environ['A'], os.environ['B']")).text).toBe("(1, '1', '2')");
      expect(await made.files.read("kept")).toBe("k");
    }
    expect(await Sandbox.deleteSnapshot(snapshotId, server.connection())).toBe(true);
    expect(await Sandbox.deleteSnapshot(snapshotId, server.connection())).toBe(false);
    await expect(server.sandbox({ template: snapshotId })).rejects.toThrow("404");
  });

  test("are of an environment: their template", async () => {
    for (const template of ["base", "code-interpreter-v1", "stdlib"])
      expect((await (await server.sandbox({ template })).getInfo()).templateId).toBe(template);
    await expect(server.sandbox({ template: "nothing" })).rejects.toThrow(/template 'nothing' not found: there are/);
  });

  test("live on through a restart of the server, paused ones too", async () => {
    const first = await startE2bServer({ DATA_DIR: `${server.config.DATA_DIR}/restarted` });
    const [running, paused] = [await first.sandbox(), await first.sandbox()];
    await running.runCode("x = 1");
    await paused.runCode("x = 2");
    await paused.pause();
    await first.stop(5000);
    const second = await startE2bServer({ DATA_DIR: `${server.config.DATA_DIR}/restarted` });
    try {
      const again = await Sandbox.connect(running.sandboxId, second.connection());
      expect((await again.runCode("x")).text).toBe("1");
      expect((await Sandbox.getInfo(paused.sandboxId, second.connection())).state).toBe("paused");
      expect((await (await Sandbox.connect(paused.sandboxId, second.connection())).runCode("x")).text).toBe("2");
    } finally {
      await second.stop(0);
    }
  });
});

describe("who asks", () => {
  test("another principal's sandbox is not there", async () => {
    const { sandboxId } = await server.sandbox();
    const bob = server.connection(BOB);
    await expect(Sandbox.getInfo(sandboxId, bob)).rejects.toThrow(SandboxNotFoundError);
    await expect(Sandbox.connect(sandboxId, bob)).rejects.toThrow(SandboxNotFoundError);
    await expect(Sandbox.setTimeout(sandboxId, 1000, bob)).rejects.toThrow(SandboxNotFoundError);
    await expect(Sandbox.pause(sandboxId, bob)).rejects.toThrow(SandboxNotFoundError);
    await expect(Sandbox.fork(sandboxId, bob)).rejects.toThrow(SandboxNotFoundError);
    await expect(Sandbox.createSnapshot(sandboxId, bob)).rejects.toThrow(SandboxNotFoundError);
    expect(await Sandbox.kill(sandboxId, bob)).toBe(false);
    expect((await Sandbox.list(bob).nextItems()).map((sandbox) => sandbox.sandboxId)).not.toContain(sandboxId);
    for (const [path, port] of [
      ["/execute", 49999],
      ["/contexts", 49999],
      ["/filesystem.Filesystem/Stat", 49983],
    ] as const) {
      const asked = { method: "POST", key: BOB, body: { code: "1", path: "/" }, headers: ofSandbox(sandboxId, port) };
      expect((await server.ask(path, asked)).status).toBe(502);
    }
  });

  test("a sandbox's token is for that one alone, and for nothing else", async () => {
    const made = await server.ask("/sandboxes", { method: "POST", body: { templateID: "base" } });
    const { sandboxID: id, envdAccessToken: token } = made.body as { sandboxID: string; envdAccessToken: string };
    const other = await server.sandbox();
    const run = async (headers: Record<string, string>) =>
      (await server.ask("/execute", { method: "POST", key: "", body: { code: "1" }, headers })).status;
    expect(await run({ ...ofSandbox(id), "x-access-token": token })).toBe(200);
    expect(await run({ ...ofSandbox(id), "e2b-traffic-access-token": token })).toBe(200);
    expect(await run({ ...ofSandbox(other.sandboxId), "x-access-token": token })).toBe(401);
    expect(await run({ ...ofSandbox(id), "x-access-token": `${token}x` })).toBe(401);
    expect(await run(ofSandbox(id))).toBe(401);
    expect((await server.ask("/sandboxes", { key: token })).status).toBe(401);
    expect((await server.ask("/sandboxes", { key: "", headers: { "x-access-token": token } })).status).toBe(401);
    expect((await server.ask("/api/sessions", { key: "", headers: { "x-access-token": token } })).status).toBe(401);
  });

  test("a sandbox's token opens no endpoint that looks beyond its address", async () => {
    const made = await server.ask("/sandboxes", { method: "POST", body: { templateID: "base" } });
    const { sandboxID: id, envdAccessToken: token } = made.body as { sandboxID: string; envdAccessToken: string };
    const other = await server.sandbox();
    const { endpoints } = e2b({ services: { config: {} } } as unknown as ProtocolOptions);
    const control = endpoints.filter(({ takesDerived }) => takesDerived !== true);
    const paths = new Set(
      control.map(({ path }) => path.split("/").find((name: string) => !["", "v2"].includes(name))),
    );
    expect([...paths].sort()).toEqual(["sandboxes", "snapshots", "templates"]);
    const headers = { ...ofSandbox(id), "x-access-token": token };
    for (const { method, path } of control) {
      for (const target of [id, other.sandboxId]) {
        const asked = path.replace(/:id/, target);
        for (const spelt of [asked, asked.toUpperCase(), `${asked}/`, `${asked}?signature=v1_x`]) {
          const body = method === "get" || method === "delete" ? undefined : {};
          const reply = await server.ask(spelt, { method: method.toUpperCase(), key: "", body, headers });
          expect([method, spelt, reply.status]).toEqual([method, spelt, 401]);
        }
      }
    }
    expect((await server.ask(`/sandboxes/${other.sandboxId}`)).status).toBe(200);
    // Nor does it outlive its sandbox.
    expect((await server.ask(`/sandboxes/${id}`, { method: "DELETE" })).status).toBe(204);
    const inside = endpoints.filter(({ takesDerived }) => takesDerived === true);
    for (const { method, path } of inside) {
      const [isBody, isInterpreter] = [method !== "get" && method !== "delete", /^.(execute|contexts)/.test(path)];
      const asked = { method: method.toUpperCase(), key: "", body: isBody ? { code: "1" } : undefined };
      const where = { ...headers, ...ofSandbox(id, isInterpreter ? 49999 : 49983) };
      const reply = await server.ask(path, { ...asked, headers: where });
      expect([path, reply.status >= 400 || isError(reply.text)]).toEqual([path, true]);
    }
  });

  test("a wrong key is refused, as the SDK tells it", async () => {
    await expect(Sandbox.create(server.connection("not-a-key-of-this-server"))).rejects.toThrow(AuthenticationError);
    expect(await server.ask("/sandboxes", { key: "" })).toMatchObject({
      status: 401,
      body: { code: 401, message: "Authentication required" },
    });
  });

  test("sessions that are no sandboxes are not there, nor are snapshots as sandboxes", async () => {
    const session = await server.ask("/api/sessions", { method: "POST", body: {} });
    const { id } = (session.body as { session: { id: string } }).session;
    const { snapshotId } = await (await server.sandbox()).createSnapshot();
    for (const unknown of [id, snapshotId, "nothing", "a.b", "x".repeat(300)]) {
      expect(await server.ask(`/sandboxes/${unknown}`)).toMatchObject({ status: 404, body: { code: 404 } });
      const asked = { method: "POST", body: { code: "1" }, headers: ofSandbox(unknown) };
      expect((await server.ask("/execute", asked)).status).toBe(502);
    }
  });
});

describe("the way to a sandbox", () => {
  test("is also the name of the host, as clients have it that know a domain alone", async () => {
    const made = await server.ask("/sandboxes", {
      method: "POST",
      body: { templateID: "base" },
      headers: { host: "api.e2b.test" },
    });
    expect(made.body).toMatchObject({ sandboxID: expect.any(String) });
    const { sandboxID: id } = made.body as { sandboxID: string };
    const { request } = await import("node:http");
    const { port } = new URL(server.url);
    const send = async (host: string, path: string, method: string, body: string) =>
      await new Promise<{ status: number; text: string }>((resolve, reject) => {
        const headers = { host, "x-api-key": ALICE, "content-type": "application/json" };
        const sent = request({ port, host: "127.0.0.1", path, method, headers }, (response) => {
          let text = "";
          response
            .on("data", (chunk) => (text += chunk))
            .on("end", () => resolve({ status: response.statusCode ?? 0, text }));
        });
        sent.on("error", reject).end(body);
      });
    const described = await send("api.e2b.test", "/sandboxes", "POST", JSON.stringify({ templateID: "base" }));
    expect(JSON.parse(described.text)).toMatchObject({ domain: "e2b.test" });
    const ran = await send(`49999-${id}.e2b.test`, "/execute", "POST", JSON.stringify({ code: "6 * 7" }));
    expect(ran.text).toContain('"text":"42"');
    expect((await send(`49983-${id}.e2b.test`, "/health", "GET", "")).status).toBe(204);
    expect((await send(`49999-${id}.e2b.test`, "/health", "GET", "")).text).toBe('"OK"');
    expect((await send(`8080-${id}.e2b.test`, "/", "GET", "")).status).toBe(404);
  });
});

describe("bad input", () => {
  test.each([
    [{}, "templateID"],
    [{ templateID: 1 }, "templateID"],
    [{ templateID: "base", timeout: -1 }, "timeout"],
    [{ templateID: "base", timeout: "60" }, "timeout"],
    [{ templateID: "base", timeout: 1e9 }, "timeout"],
    [{ templateID: "base", metadata: { a: 1 } }, "metadata"],
    [{ templateID: "base", envVars: { "a=b": "c" } }, "env"],
    [{ templateID: "base", envVars: { a: "\0" } }, "env"],
    [
      { templateID: "base", network: { denyOut: ["10.0.0.0/8"] } },
      'network.denyOut "10.0.0.0/8" is not supported here',
    ],
    [{ templateID: "base", network: { egressProxy: { address: "a:1" } } }, "network.egressProxy is not supported here"],
    [{ templateID: "base", network: { maskRequestHost: "x" } }, "network.maskRequestHost is not supported here"],
    [{ templateID: "base", network: { rules: { "a b": [{ transform: { headers: { A: "b" } } }] } } }, "network.rules"],
    [{ templateID: "base", network: { rules: { "a.example": [{ transform: { query: {} } }] } } }, "network.rules"],
    [{ templateID: "base", mcp: { browserbase: {} } }, "mcp is not supported here"],
    [{ templateID: "base", volumeMounts: [{ name: "v", path: "/v" }] }, "volumeMounts is not supported here"],
    [{ templateID: "base", iam: { tokens: { a: {} } } }, "iam is not supported here"],
  ])("creating with %j is refused by name", async (body, message) => {
    for (const path of ["/sandboxes", "/v2/sandboxes"]) {
      const { status, body: reply } = await server.ask(path, { method: "POST", body });
      expect({ status, reply }).toEqual({
        status: 400,
        reply: { code: 400, message: expect.stringContaining(message) },
      });
    }
  });

  test.each([
    ["/sandboxes", "POST", "{", 400],
    ["/v2/sandboxes?limit=0", "GET", undefined, 400],
    ["/v2/sandboxes?limit=1000", "GET", undefined, 400],
    ["/v2/sandboxes?nextToken=none", "GET", undefined, 400],
    ["/v2/sandboxes?state=gone", "GET", undefined, 400],
    ["/v2/sandboxes?startedAfter=never", "GET", undefined, 400],
    ["/volumes", "GET", undefined, 404],
    ["/v3/templates", "POST", {}, 404],
  ] as const)("%s by %s is refused", async (path, method, body, status) => {
    const refused = await server.ask(path, { method, ...(body !== undefined && { body }) });
    expect(refused).toMatchObject({ status, body: { code: status, message: expect.any(String) } });
  });

  test.each([{}, { code: 1 }, { code: "1", env_vars: { a: 1 } }, { code: "1", context_id: 1 }, "{"])(
    "executing %j is refused",
    async (body) => {
      const { sandboxId } = await server.sandbox();
      const refused = await server.ask("/execute", { method: "POST", body, headers: ofSandbox(sandboxId) });
      expect(refused.status).toBe(400);
      expect(refused.text).not.toBe("");
    },
  );

  test("network rules hold for code, and add their headers", async () => {
    const seen: (string | undefined)[] = [];
    const host = createServer(({ headers }, response) => {
      seen.push(headers["x-added"] as string | undefined);
      response.end("there");
    });
    await once(host.listen(0, "127.0.0.1"), "listening");
    const address = `127.0.0.1:${(host.address() as AddressInfo).port}`;
    const open = await startE2bServer({ NETWORK_ALLOW: address, NETWORK_ALLOW_PRIVATE: "true" });
    const code = `import urllib.request\ntry: print(urllib.request.urlopen('http://${address}').read())\nexcept Exception: print('refused')`;
    const reached = async (sandbox: Sandbox) => (await sandbox.runCode(code)).logs.stdout.join("") === "b'there'\n";
    const rules = { [`http://${address}`]: [{ transform: { headers: { "X-Added": "a" } } }] };
    try {
      expect(await reached(await open.sandbox())).toBe(true);
      expect(await reached(await open.sandbox({ allowInternetAccess: false }))).toBe(false);
      const sandbox = await open.sandbox({ network: { rules } });
      expect(await reached(sandbox)).toBe(true);
      await sandbox.updateNetwork({ allowOut: [address], denyOut: ["0.0.0.0/0"], rules });
      expect(await reached(sandbox)).toBe(true);
      await sandbox.updateNetwork({ denyOut: ["0.0.0.0/0"] });
      expect(await reached(sandbox)).toBe(false);
      await sandbox.updateNetwork({});
      expect(await reached(sandbox)).toBe(true);
      expect(seen).toEqual([undefined, "a", "a", undefined]);
    } finally {
      await open.stop(0);
      host.close();
    }
  });

  test("network rules are kept, shown and replaced", async () => {
    const sandbox = await server.sandbox({
      network: { allowOut: ["example.com"], denyOut: ["0.0.0.0/0"] },
      allowInternetAccess: true,
    });
    expect((await sandbox.getInfo()).network).toMatchObject({ allowOut: ["example.com"], denyOut: ["0.0.0.0/0"] });
    const session = async () => await server.ask(`/sandboxes/${sandbox.sandboxId}`);
    await sandbox.updateNetwork({ allowInternetAccess: false });
    expect((await session()).body).toMatchObject({ allowInternetAccess: false, network: {} });
    await expect(sandbox.updateNetwork({ denyOut: ["1.1.1.1"] })).rejects.toThrow("network.denyOut");
  });

  test("a sandbox whose time is over at once is described, and gone", async () => {
    const timeout = 0;
    const ask = async (path: string, body: object) => await server.ask(path, { method: "POST", body });
    const made = await ask("/sandboxes", { templateID: "base", timeout });
    expect(made).toMatchObject({ status: 201, body: { sandboxID: expect.any(String), templateID: "base" } });
    const { sandboxID } = made.body as { sandboxID: string };
    expect((await server.ask(`/sandboxes/${sandboxID}`)).status).toBe(404);
    const { sandboxId } = await server.sandbox();
    expect(await ask(`/sandboxes/${sandboxId}/fork`, { timeout })).toMatchObject({
      status: 201,
      body: [{ sandbox: { sandboxID: expect.any(String) } }],
    });
    expect((await ask(`/sandboxes/${sandboxId}/pause`, {})).status).toBe(204);
    expect(await ask(`/sandboxes/${sandboxId}/connect`, { timeout })).toMatchObject({
      status: 201,
      body: { sandboxID: sandboxId },
    });
    expect((await server.ask(`/sandboxes/${sandboxId}`)).status).toBe(404);
  });

  test("of network rules no more is kept than is understood, and that is bounded", async () => {
    const long = "x".repeat(4000);
    const hosts = Array.from({ length: 100 }, (_, n) => `host-${n}.example`);
    const { sandboxId } = await server.sandbox();
    const put = async (body: object) =>
      await server.ask(`/sandboxes/${sandboxId}/network`, { method: "PUT", body: { ...body } });
    const unknown = { rules: { h: [{ x: long }] }, other: long, allowOut: hosts, allowPublicTraffic: true };
    expect((await put(unknown)).status).toBe(204);
    expect((await server.ask(`/sandboxes/${sandboxId}`)).body).toMatchObject({
      network: { allowOut: hosts, allowPublicTraffic: true },
    });
    expect((await server.ask(`/sandboxes/${sandboxId}`)).text).not.toContain(long);
    const headers = Object.fromEntries(hosts.map((host) => [host, [{ transform: { headers: { A: long } } }]]));
    for (const network of [
      { allowOut: [...hosts, "one.example"] },
      { allowOut: [long] },
      { denyOut: Array.from({ length: 101 }, () => "0.0.0.0/0") },
      { rules: headers },
      { rules: { "a.example": [{ transform: { headers: { [long.repeat(40)]: "1" } } }] } },
      { rules: { "a.example": [{ transform: { headers: { A: "1" }, other: long } }] } },
    ]) {
      expect((await put(network)).status).toBe(400);
      const made = { method: "POST", body: { templateID: "base", network } };
      expect((await server.ask("/sandboxes", made)).status).toBe(400);
    }
    // The server's own sessions have the same rules.
    const own = { method: "POST", body: { network: { rules: headers } } };
    expect(await server.ask("/api/sessions", own)).toMatchObject({ status: 400, body: { code: "invalid_network" } });
  });

  test("what sandboxes take over from snapshots of snapshots is bounded", async () => {
    const of = (name: string) => ({ [name]: "\u0001".repeat(30_000) });
    const first = await server.sandbox({ envs: of("A") });
    const { snapshotId } = await first.createSnapshot();
    const made = { method: "POST", body: { templateID: snapshotId, envVars: of("B") } };
    const { status, body } = await server.ask("/sandboxes", made);
    expect({ status, body }).toMatchObject({ status: 400, body: { message: expect.stringContaining("of a session") } });
  });

  test("a client that is slow to see the end gets all of it", async () => {
    const sandbox = await server.sandbox();
    const execution = await sandbox.runCode("for i in range(3): print(i)\n'end'", {
      onStdout: async () => await sleep(20),
    });
    expect(execution.logs.stdout.join("")).toBe("0\n1\n2\n");
    expect(execution.text).toBe("end");
  });
});
