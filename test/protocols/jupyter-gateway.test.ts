/** `jupyter … --gateway-url`: JupyterLab's own library at Debian's own Jupyter server, whose kernels are this server's. */
import { type Kernel, KernelManager, SessionManager } from "@jupyterlab/services";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { jupyterSettings, runCell } from "../support/jupyter.ts";
import { hasJupyterServer, hasNotebook, type JupyterServer, startJupyterServer } from "../support/jupyter-server.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const PROGRAMS = [
  ["jupyter_server", hasJupyterServer, "python3-jupyter-server"],
  ["notebook", hasNotebook, "jupyter-notebook"],
] as const;
for (const [, has, name] of PROGRAMS)
  if (!has) console.warn(`There is no ${name} on this machine: its gateway client is not tested.`);
// What the library says of its connections.
for (const method of ["debug", "log", "warn", "error"] as const) vi.spyOn(console, method).mockImplementation(() => {});

describe.each(PROGRAMS)("%s with --gateway-url", (program, has) => {
  if (!has) return test.skip("is not on this machine", () => {});
  const key = "a-key-of-the-gateway-tests";
  let server: TestServer;
  let jupyter: JupyterServer;
  let kernels: KernelManager;
  let sessions: SessionManager;
  let kernel: Kernel.IKernelConnection;

  beforeAll(async () => {
    server = await startTestServer({ API_KEYS: `alice:${key}`, POOL_SIZE: "2" });
    jupyter = await startJupyterServer(
      [`--gateway-url=${server.url}`],
      {
        JUPYTER_GATEWAY_AUTH_TOKEN: key,
        A_SECRET_OF_THE_MACHINE: "not for kernels",
      },
      program,
    );
    const serverSettings = jupyterSettings(jupyter.url, jupyter.token, "");
    kernels = new KernelManager({ serverSettings });
    sessions = new SessionManager({ serverSettings, kernelManager: kernels });
    await sessions.ready;
    const made = await sessions.startNew({ path: "n.ipynb", name: "n", type: "notebook", kernel: { name: "python3" } });
    kernel = made.kernel as Kernel.IKernelConnection;
  }, 60_000);
  afterAll(async () => {
    for (const manager of [sessions, kernels]) manager?.dispose();
    await jupyter?.stop();
    await server?.stop(0);
  });

  test("runs cells here", async () => {
    const { outputs, reply } = await runCell(kernel, "import sys\nprint(sys.platform)\n6 * 7");
    expect(outputs.slice(1)).toEqual([
      ["stream", { name: "stdout", text: "emscripten\n" }],
      ["execute_result", { execution_count: 1, data: { "text/plain": "42" }, metadata: {} }],
    ]);
    expect(reply.status).toBe("ok");
    expect((await runCell(kernel, "1 / 0")).reply.ename).toBe("ZeroDivisionError");
    expect((await runCell(kernel, "print(input('? '))", "Ada")).outputs.at(-1)?.[1].text).toBe("Ada\n");
  });

  test("completes, inspects, interrupts and restarts", async () => {
    await runCell(kernel, "apple = 1");
    expect((await kernel.requestComplete({ code: "appl", cursor_pos: 4 })).content).toMatchObject({
      matches: ["apple"],
    });
    const inspected = await kernel.requestInspect({ code: "print", cursor_pos: 5, detail_level: 0 });
    expect(inspected.content).toMatchObject({ found: true });
    const running = kernel.requestExecute({ code: "print('begun', flush=True)\nwhile True: pass" });
    const begun = Promise.withResolvers<void>();
    running.onIOPub = ({ header }) => {
      if (header.msg_type === "stream") begun.resolve();
    };
    await begun.promise;
    await kernel.interrupt();
    expect((await running.done).content).toMatchObject({ ename: "KeyboardInterrupt" });
    await kernel.restart();
    expect((await runCell(kernel, "apple")).reply).toMatchObject({ ename: "NameError", execution_count: 1 });
  });

  test("passes on none of its machine's environment variables but those meant for kernels", async () => {
    const code =
      "import os\nprint(os.environ.get('A_SECRET_OF_THE_MACHINE'), os.environ.get('JPY_SESSION_NAME'), 'KERNEL_LAUNCH_TIMEOUT' in os.environ)";
    expect((await runCell(kernel, code)).outputs.at(-1)?.[1].text).toBe(
      // Notebook names no document.
      `None ${program === "notebook" ? "None" : "n.ipynb"} True\n`,
    );
  });

  test("ends kernels", async () => {
    await kernel.shutdown();
    expect((await server.get("/api/kernels", { authorization: `token ${key}` })).body).toEqual([]);
  });
});
