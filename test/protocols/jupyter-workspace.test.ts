/** A notebook's code and the files of its server are one, with JupyterLab's own library. */
import { randomUUID } from "node:crypto";
import { ContentsManager, type Kernel, KernelManager, SessionManager } from "@jupyterlab/services";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { JupyterSocket, jupyterSettings, runCell } from "../support/jupyter.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
let contents: ContentsManager;
let kernels: KernelManager;
let sessions: SessionManager;

// What the library says of its connections.
for (const method of ["debug", "log", "warn", "error"] as const) vi.spyOn(console, method).mockImplementation(() => {});

beforeAll(async () => {
  server = await startTestServer({ POOL_SIZE: "2" });
  const serverSettings = jupyterSettings(server.url);
  contents = new ContentsManager({ serverSettings });
  kernels = new KernelManager({ serverSettings });
  sessions = new SessionManager({ serverSettings, kernelManager: kernels });
});
afterEach(async () => await kernels.shutdownAll());
afterAll(async () => {
  for (const manager of [sessions, kernels, contents]) manager?.dispose();
  await server.stop(0);
});

const text = (content: string) => ({ type: "file", format: "text", content }) as const;
const printed = (output: string) => ["stream", { name: "stdout", text: output }];

async function open(path: string) {
  const session = await sessions.startNew({ path, name: path, type: "notebook", kernel: { name: "python3" } });
  if (session.kernel === null) throw new Error("a session without a kernel");
  return session.kernel;
}

test("code reads what was uploaded, whenever it was; what code writes is downloaded", async () => {
  await contents.save("data.csv", text("1,2\n"));
  const kernel = await open("n.ipynb");
  expect((await runCell(kernel, "print(open('data.csv').read())")).outputs[1]).toEqual(printed("1,2\n\n"));
  await contents.save("data.csv", text("3,4\n"));
  expect((await runCell(kernel, "print(open('data.csv').read())")).outputs[1]).toEqual(printed("3,4\n\n"));
  await runCell(kernel, "import os\nos.makedirs('out')\nopen('out/r.txt', 'w').write('result')");
  expect((await contents.get("out/r.txt")).content).toBe("result");
  // Another kernel, and what executes without one.
  const other = await kernels.startNew({ name: "python3" });
  expect((await runCell(other, "print(open('out/r.txt').read())")).outputs[1]).toEqual(printed("result\n"));
  expect((await server.post("/api/execute", { code: "open('out/r.txt').read()" })).body.result).toBe("result");
  await contents.delete("out/r.txt");
  expect((await runCell(kernel, "open('out/r.txt')")).reply.ename).toBe("FileNotFoundError");
});

test("a cell whose files others have left no room for is an error, and kernel and files are as they were", async () => {
  const small = await startTestServer({ WORKSPACE_MAX_MB: "1", POOL_SIZE: "2" });
  try {
    const { body } = await small.post("/api/kernels", {});
    const socket = await JupyterSocket.open(small.url, `/api/kernels/${body.id}/channels`);
    await socket.ask("execute_request", { code: "x = 1" });
    // It waits for its answer until the other has come.
    const code = "x = 2\nopen('a', 'wb').write(bytes(700_000))\ny = input('begun')";
    const running = socket.send("execute_request", { code });
    await socket.find(({ msg_type: type }) => type === "input_request");
    const put = await small.request("/api/files/home/pyodide/b", { method: "PUT", body: "y".repeat(700_000) });
    expect(put.status).toBeLessThan(300);
    socket.send("input_reply", { value: "" }, { channel: "stdin" });
    const { reply, outputs } = await socket.done(running);
    expect(reply).toMatchObject({ status: "error", evalue: expect.stringContaining("The workspace is full") });
    expect(outputs.map(([type]) => type)).toEqual(["execute_input", "error"]);
    expect((await socket.ask("execute_request", { code: "import os\nprint(x, os.listdir())" })).outputs[1]).toEqual(
      printed("1 ['b']\n"),
    );
  } finally {
    await small.stop(0);
  }
});

test.each([
  ["a/b/n.ipynb", "/home/pyodide/a/b"],
  // Those before the last that are not there.
  ["a/none/n.ipynb", "/home/pyodide/a"],
  ["/a/n.ipynb", "/home/pyodide/a"],
  ["/Users/ada/n.ipynb", "/home/pyodide"],
  ["n.ipynb", "/home/pyodide"],
  ["../../etc/n.ipynb", "/home/pyodide"],
  ["a/b", "/home/pyodide/a/b"],
  ["a\0b/n.ipynb", "/home/pyodide"],
])("the document %j has a kernel that begins in %s", async (path, folder) => {
  await contents.save("a", { type: "directory" });
  await contents.save("a/b", { type: "directory" });
  const kernel = await open(path);
  expect((await runCell(kernel, "import os; print(os.getcwd())")).outputs[1]).toEqual(printed(`${folder}\n`));
  await kernel.restart();
  expect((await runCell(kernel, "import os; print(os.getcwd())")).outputs[1]).toEqual(printed(`${folder}\n`));
  // No folder is made for a document that is somewhere else.
  const names = (await contents.get("")).content.map(({ name }: { readonly name: string }) => name);
  expect(names).not.toEqual(expect.arrayContaining(["Users"]));
});

test("VS Code: a session by a name that no file has, and code of its own before the cells", async () => {
  // It wants to know whether there is a password to ask for, or a JupyterHub.
  expect((await server.get("/jupyter/tree?")).status).toBe(200);
  expect((await server.get("/jupyter/hub/api")).status).toBe(404);
  const id = randomUUID();
  const session = await sessions.startNew({
    path: `n-jvsc-${id}.ipynb`,
    name: `n-${id}.ipynb`,
    type: "notebook",
    kernel: { name: "python3" },
  });
  const kernel = session.kernel as Kernel.IKernelConnection;
  await kernel.info;
  const flags = { silent: false, stop_on_error: false, allow_stdin: true, store_history: false };
  for (const code of [
    "%config Completer.use_jedi = False",
    "%matplotlib inline",
    "import os as _VSCODE_os\nimport sys as _VSCODE_sys\nimport builtins as _VSCODE_builtins\nif _VSCODE_os.path.isdir('/Users/ada'):\n    %cd '/Users/ada'\ndel _VSCODE_os, _VSCODE_sys, _VSCODE_builtins",
  ]) {
    expect([code, (await kernel.requestExecute({ code, ...flags }).done).content]).toMatchObject([
      code,
      { status: "ok" },
    ]);
  }
  const { reply, outputs } = await runCell(kernel, "import os\nprint(os.getcwd())");
  expect([reply.execution_count, outputs[1]]).toEqual([1, printed("/home/pyodide\n")]);
  await session.shutdown();
});

const begin = async (body: object) => await server.post("/jupyter/api/kernels", body);

async function print(id: string, code: string) {
  const socket = await JupyterSocket.open(server.url, `/api/kernels/${id}/channels`);
  const { outputs } = await socket.ask("execute_request", { code });
  socket.close();
  return outputs.at(-1)?.[1].text;
}

test("a gateway's client names its variables; those of its machine are not passed on", async () => {
  const env = { KERNEL_USERNAME: "ada", JPY_SESSION_NAME: "n.ipynb", HOME: "/Users/ada", AWS_SECRET: "s", MANY: 5 };
  const { body } = await begin({ name: "python3", env, path: "n.ipynb" });
  const code =
    "import os\nprint(*[os.environ.get(n) for n in ('KERNEL_USERNAME', 'JPY_SESSION_NAME', 'AWS_SECRET')], os.environ['HOME'])";
  expect(await print(body.id, code)).toBe("ada n.ipynb None /home/pyodide\n");
  expect(JSON.stringify((await server.get(`/api/sessions/${body.id}`)).body)).not.toContain("AWS");
});

test.each([
  ["Env must be an object of strings.", { env: ["KERNEL_A=1"] }],
  ["Values of env must be strings.", { env: { KERNEL_A: 1 } }],
  ["32768", { env: { KERNEL_A: "x".repeat(40_000) } }],
  ["NUL", { env: { KERNEL_A: "\0" } }],
  ["Path must be a string.", { path: 5 }],
  ["Path has over 4096 characters.", { path: "x".repeat(5000) }],
  ["The name of a kernel must be a string.", { name: 5 }],
])("a kernel is refused: %s", async (message, body) => {
  const reply = await begin(body);
  expect([reply.status, reply.body.message]).toEqual([400, expect.stringContaining(message)]);
});
