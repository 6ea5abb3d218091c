/** JupyterLab's own library, unchanged, against a real server. */
import { type Kernel, KernelAPI, KernelManager, KernelSpecManager, SessionManager } from "@jupyterlab/services";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { jupyterSettings, runCell } from "../support/jupyter.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const KEY = "a-key-of-the-jupyter-tests";
let server: TestServer;
const opened: { dispose(): void }[] = [];

// What the library says of its connections.
for (const method of ["debug", "log", "warn", "error"] as const) vi.spyOn(console, method).mockImplementation(() => {});

beforeAll(async () => {
  server = await startTestServer({
    API_KEYS: `alice:${KEY},bob:another-key-of-jupyter`,
    POOL_SIZE: "2",
    // Of requests that name none. A cell is none of them.
    EXECUTION_TIMEOUT_MS: "1000",
  });
});
afterEach(() => {
  for (const manager of opened.splice(0)) manager.dispose();
});
afterAll(async () => await server.stop(0));

const settings = () => jupyterSettings(server.url, KEY);

async function startKernel(name = "python3"): Promise<Kernel.IKernelConnection> {
  const manager = new KernelManager({ serverSettings: settings() });
  opened.push(manager);
  return await manager.startNew({ name });
}

test("kernels are one for each environment, and python3", async () => {
  const manager = new KernelSpecManager({ serverSettings: settings() });
  opened.push(manager);
  await manager.ready;
  const { default: standard, kernelspecs = {} } = manager.specs ?? {};
  expect(standard).toBe("python3");
  expect(Object.keys(kernelspecs)).toEqual(["python3", "stdlib"]);
  expect(kernelspecs.python3).toMatchObject({ language: "python", display_name: expect.stringMatching(/^Python 3\./) });
});

test("a kernel says what it is", async () => {
  const kernel = await startKernel();
  expect(await kernel.info).toMatchObject({
    status: "ok",
    protocol_version: expect.stringMatching(/^5\./),
    implementation: "pyodide-express",
    language_info: { name: "python", file_extension: ".py", version: expect.stringMatching(/^3\./) },
  });
});

test("output comes as it is printed, and an error with its traceback, which is not in stderr", async () => {
  const kernel = await startKernel();
  const first = await runCell(kernel, "import sys\nx = 41\nprint('out')\nprint('err', file=sys.stderr)");
  expect(first.reply).toMatchObject({ status: "ok", execution_count: 1, payload: [], user_expressions: {} });
  expect(first.outputs).toEqual([
    ["execute_input", { code: expect.stringContaining("x = 41"), execution_count: 1 }],
    ["stream", { name: "stdout", text: "out\n" }],
    ["stream", { name: "stderr", text: "err\n" }],
  ]);
  const failed = await runCell(kernel, "1 / 0");
  expect(failed.reply).toMatchObject({ status: "error", ename: "ZeroDivisionError", execution_count: 2 });
  const error = { ename: "ZeroDivisionError", evalue: "division by zero", traceback: expect.any(Array) };
  expect(failed.outputs.slice(1)).toEqual([["error", error]]);
  expect(failed.reply.traceback.join("\n")).toContain("1 / 0");
  expect((await runCell(kernel, "print(x)")).outputs[1]).toEqual(["stream", { name: "stdout", text: "41\n" }]);
});

test("the last value is shown in all of its representations, None is not, and a semicolon hides it", async () => {
  const kernel = await startKernel();
  const shown = async (code: string) => (await runCell(kernel, code)).outputs.slice(1);
  expect(await shown("[1, 'a']")).toEqual([
    ["execute_result", { execution_count: 1, data: { "text/plain": "[1, 'a']" }, metadata: {} }],
  ]);
  expect(await shown("None")).toEqual([]);
  expect(await shown("1;")).toEqual([]);
  const rich =
    "class Rich:\n  def _repr_html_(self): return '<b>hi</b>', {'isolated': True}\n  def __repr__(self): return 'hi'\nRich()";
  expect(await shown(rich)).toEqual([
    [
      "execute_result",
      {
        execution_count: 4,
        data: { "text/html": "<b>hi</b>", "text/plain": "hi" },
        metadata: { "text/html": { isolated: true } },
      },
    ],
  ]);
});

test("what is displayed can be updated and cleared, and JSON is JSON", async () => {
  const kernel = await startKernel();
  const code = `
from IPython.display import display, update_display, clear_output
display({"application/json": {"a": [1]}, "text/plain": "json"}, raw=True)
display("one", display_id="x")
update_display("two", display_id="x")
clear_output(wait=True)
print("end")`;
  const { outputs } = await runCell(kernel, code);
  expect(outputs.slice(1)).toEqual([
    ["display_data", { data: { "application/json": { a: [1] }, "text/plain": "json" }, metadata: {}, transient: {} }],
    ["display_data", { data: { "text/plain": "'one'" }, metadata: {}, transient: { display_id: "x" } }],
    ["update_display_data", { data: { "text/plain": "'two'" }, metadata: {}, transient: { display_id: "x" } }],
    ["clear_output", { wait: true }],
    ["stream", { name: "stdout", text: "end\n" }],
  ]);
});

test("code asks the user who runs it", async () => {
  const kernel = await startKernel();
  const { outputs, reply } = await runCell(kernel, "print(input('name? ').upper())", "Ada");
  expect(outputs.slice(1)).toEqual([["stream", { name: "stdout", text: "ADA\n" }]]);
  expect(reply.status).toBe("ok");
});

test("a cell has more time than a request that names none", async () => {
  const { reply } = await runCell(await startKernel(), "import time\ntime.sleep(1.5)");
  expect(reply.status).toBe("ok");
});

test("output beyond the bound is said to be cut, once", async () => {
  const kernel = await startKernel();
  const { outputs } = await runCell(kernel, "for _ in range(3): print('x' * 1_000_000)");
  const [, out, note, ...more] = outputs;
  expect(out?.[1].text).toHaveLength(1024 * 1024);
  const text = expect.stringMatching(/^\[Output was cut: .* 1 MiB .*\]\n$/);
  expect(note).toEqual(["stream", { name: "stderr", text }]);
  expect(more).toEqual([]);
  expect((await runCell(kernel, "print('x')")).outputs).toHaveLength(2);
});

test("an interrupt ends a cell with KeyboardInterrupt, those that wait are aborted, and variables stay", async () => {
  const kernel = await startKernel();
  const running = kernel.requestExecute({
    code: "x = 5\nprint('begun')\nwhile True: pass",
    stop_on_error: true,
  });
  const { promise: begun, resolve } = Promise.withResolvers<void>();
  running.onIOPub = ({ header }) => {
    if (header.msg_type === "stream") resolve();
  };
  const waiting = kernel.requestExecute({ code: "x = 6" });
  await begun;
  expect((await KernelAPI.getKernelModel(kernel.id, settings()))?.execution_state).toBe("busy");
  await kernel.interrupt();
  expect((await running.done).content).toMatchObject({ status: "error", ename: "KeyboardInterrupt" });
  expect((await waiting.done).content.status).toBe("aborted");
  expect((await runCell(kernel, "print(x)")).outputs[1]).toEqual(["stream", { name: "stdout", text: "5\n" }]);
});

test("a restart forgets variables and counts from 1, also while code runs or asks", async () => {
  const kernel = await startKernel();
  for (const code of ["while True: pass", "input('? ')"]) {
    await runCell(kernel, "x = 1");
    const running = kernel.requestExecute({ code: `print('begun', flush=True)\n${code}` });
    running.done.catch(() => {});
    const { promise: begun, resolve } = Promise.withResolvers<void>();
    running.onIOPub = ({ header }) => {
      if (header.msg_type === "stream") resolve();
    };
    await begun;
    await kernel.restart();
    expect((await runCell(kernel, "x")).reply).toMatchObject({ ename: "NameError", execution_count: 1 });
  }
});

test("a kernel that is shut down is gone", async () => {
  const kernel = await startKernel();
  const models = async () => (await KernelAPI.listRunning(settings())).map(({ id }) => id);
  expect(await models()).toContain(kernel.id);
  await kernel.shutdown();
  expect(await models()).not.toContain(kernel.id);
  expect(await KernelAPI.getKernelModel(kernel.id, settings())).toBeUndefined();
});

test("documents have kernels: found again by their path, renamed, given another kernel", async () => {
  const kernelManager = new KernelManager({ serverSettings: settings() });
  const manager = new SessionManager({ serverSettings: settings(), kernelManager });
  opened.push(manager, kernelManager);
  await manager.ready;
  const document = { path: "a/one.ipynb", name: "one.ipynb", type: "notebook" };
  const session = await manager.startNew({ ...document, kernel: { name: "python3" } });
  const again = await manager.startNew({ ...document, kernel: { name: "python3" } });
  expect([again.id, again.kernel?.id]).toEqual([session.id, session.kernel?.id]);
  await session.setPath("a/two.ipynb");
  expect(await manager.findByPath("a/two.ipynb")).toMatchObject({ id: session.id });
  const before = session.kernel?.id;
  await session.changeKernel({ name: "stdlib" });
  expect(session.kernel?.name).toBe("stdlib");
  await manager.refreshRunning();
  expect(await manager.findByPath("a/two.ipynb")).toMatchObject({ id: session.id, kernel: { name: "stdlib" } });
  expect((await KernelAPI.listRunning(settings())).map(({ id }) => id)).not.toContain(before);
  await session.shutdown();
  await manager.refreshRunning();
  expect(await manager.findByPath("a/two.ipynb")).toBeUndefined();
});

test("another principal's kernels are not there", async () => {
  const kernel = await startKernel();
  const bob = jupyterSettings(server.url, "another-key-of-jupyter");
  expect(await KernelAPI.listRunning(bob)).toEqual([]);
  await expect(KernelAPI.interruptKernel(kernel.id, bob)).rejects.toThrow(`Kernel does not exist: ${kernel.id}`);
  await expect(KernelAPI.restartKernel(kernel.id, bob)).rejects.toThrow(`Kernel does not exist: ${kernel.id}`);
});

test("kernels are at the root, too, for clients with no other path", async () => {
  const atRoot = jupyterSettings(server.url, KEY, "");
  const manager = new KernelManager({ serverSettings: atRoot });
  opened.push(manager);
  const kernel = await manager.startNew({ name: "python3" });
  expect((await runCell(kernel, "print(1)")).reply.status).toBe("ok");
});
