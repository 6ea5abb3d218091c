/** What JupyterLab asks of a kernel while its user writes code, by its own library, and as no client should. */
import { type Kernel, KernelManager } from "@jupyterlab/services";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { JupyterSocket, jupyterSettings, runCell } from "../support/jupyter.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
let manager: KernelManager;
let kernel: Kernel.IKernelConnection;

// What the library says of its connections.
for (const method of ["debug", "log", "warn", "error"] as const) vi.spyOn(console, method).mockImplementation(() => {});

beforeAll(async () => {
  server = await startTestServer({ POOL_SIZE: "2" });
  manager = new KernelManager({ serverSettings: jupyterSettings(server.url) });
  kernel = await manager.startNew({ name: "python3" });
});
afterAll(async () => {
  manager?.dispose();
  await server.stop(0);
});

/** Not checked: what a kernel answers is what these tests are about. */
// biome-ignore lint/suspicious/noExplicitAny: as said.
const contentOf = async (reply: Promise<unknown>) => ((await reply) as { readonly content: any }).content;
const complete = async (code: string, cursor_pos: number) =>
  await contentOf(kernel.requestComplete({ code, cursor_pos }));

test("completion knows the kernel's variables, counts code points, and says what each is", async () => {
  await runCell(kernel, "apple = {'pip': 1}\nclass Pear:\n  def peel(self): ...\npear = Pear()");
  const code = "'🍐🍐'; appl + 1";
  const cursor = [..."'🍐🍐'; appl"].length;
  expect(await complete(code, cursor)).toEqual({
    status: "ok",
    matches: ["apple"],
    cursor_start: cursor - 4,
    cursor_end: cursor,
    metadata: {
      _jupyter_types_experimental: [{ text: "apple", type: "instance", start: cursor - 4, end: cursor }],
    },
  });
  const attributes = await complete("pear.pe", 7);
  expect([attributes.matches, attributes.metadata._jupyter_types_experimental[0].type]).toEqual([["peel"], "function"]);
  expect(await complete("nothing_of_this_name", 20)).toMatchObject({ status: "ok", matches: [] });
  // It counts as no cell.
  expect((await runCell(kernel, "1")).reply.execution_count).toBe(2);
});

test("inspection has signature and documentation, at detail 1 the source, and says where nothing is known", async () => {
  await runCell(kernel, 'def peel(fruit, times=2):\n  """Peels."""\n  return fruit');
  const asked = { code: "peel(1)", cursor_pos: 3, detail_level: 0 } as const;
  const plain = await contentOf(kernel.requestInspect(asked));
  expect(plain).toMatchObject({ status: "ok", found: true, metadata: {} });
  expect(plain.data["text/plain"]).toMatch(/peel\(fruit, times=2\).*Peels\./s);
  expect(plain.data["text/plain"]).not.toContain("return fruit");
  const detailed = await contentOf(kernel.requestInspect({ ...asked, detail_level: 1 }));
  expect(detailed.data["text/plain"]).toContain("return fruit");
  const none = await contentOf(kernel.requestInspect({ code: "grapes", cursor_pos: 2, detail_level: 0 }));
  expect(none).toEqual({ status: "ok", found: false, data: {}, metadata: {} });
});

test.each([
  ["x = 1", { status: "complete" }],
  ["if x:", { status: "incomplete", indent: "    " }],
  ["x = = 1", { status: "invalid" }],
])("whether %j is whole is said", async (code, status) => {
  expect(await contentOf(kernel.requestIsComplete({ code }))).toEqual(status);
});

test("a kernel that runs answers when it has run; one whose session another runs code in knows nothing", async () => {
  const running = kernel.requestExecute({ code: "late = 1\nimport time\ntime.sleep(0.3)" });
  const asked = complete("lat", 3);
  await running.done;
  expect((await asked).matches).toEqual(["late"]);
  const execution = server.post("/api/execute", { session: kernel.id, code: "while True: pass", timeout: 60_000 });
  try {
    // Until it holds the session: it is answered at once before, and not before a second has passed then.
    await vi.waitFor(async () => expect(await complete("lat", 3)).toMatchObject({ status: "ok", matches: [] }), {
      timeout: 30_000,
    });
    expect(await contentOf(kernel.requestInspect({ code: "late", cursor_pos: 4, detail_level: 0 }))).toMatchObject({
      status: "ok",
      found: false,
    });
    expect(await contentOf(kernel.requestIsComplete({ code: "x = 1" }))).toEqual({ status: "complete" });
  } finally {
    await server.post(`/api/sessions/${kernel.id}/interrupt`, {});
    await execution;
  }
});

test("what is asked wrongly is refused in the reply, and a cursor behind the end is at the end", async () => {
  const socket = await JupyterSocket.open(server.url, `/api/kernels/${kernel.id}/channels`);
  const ask = async (type: string, content: object) => (await socket.ask(type, content)).reply;
  const refused = { status: "error", ename: "invalid_request" };
  expect(await ask("complete_request", { code: 1, cursor_pos: 0 })).toMatchObject(refused);
  expect(await ask("complete_request", { code: "a", cursor_pos: -1 })).toMatchObject(refused);
  expect(await ask("complete_request", { code: "x".repeat(100_001), cursor_pos: 1 })).toMatchObject(refused);
  expect(await ask("inspect_request", { code: "a", cursor_pos: 1, detail_level: 7 })).toMatchObject(refused);
  expect(await ask("is_complete_request", {})).toMatchObject(refused);
  expect(await ask("complete_request", { code: "appl", cursor_pos: 99 })).toMatchObject({ matches: ["apple"] });
  expect(await ask("complete_request", { code: "appl" })).toMatchObject({ matches: ["apple"], cursor_end: 4 });
  socket.close();
});
