/** Messages as small clients write them, and as none should. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { JupyterSocket } from "../support/jupyter.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { SocketClient } from "../support/web-socket.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ POOL_SIZE: "2" });
});
afterAll(async () => await server.stop(0));

async function newKernel(on = server): Promise<string> {
  return (await on.post("/api/kernels", {})).body.id;
}

async function connect(kernel?: string, session = "", on = server): Promise<JupyterSocket> {
  const id = kernel ?? (await newKernel(on));
  return await JupyterSocket.open(on.url, `/api/kernels/${id}/channels?session_id=${session}`);
}

const stream = (text: string) => ["stream", { name: "stdout", text }] as const;

test("the address itself, and its version, need no key and give a cookie for clients that send one back", async () => {
  for (const path of ["/jupyter", "/jupyter/", "/jupyter/lab", "/jupyter/login", "/jupyter/api", "/api"]) {
    const { status, headers } = await server.get(path);
    expect([path, status]).toEqual([path, 200]);
    expect(headers.get("set-cookie")).toMatch(/^_xsrf=/);
  }
  expect((await server.get("/api")).body).toEqual({ version: expect.stringMatching(/^2\./) });
  expect((await server.post("/jupyter/login", "password=x")).body.message).toContain("API key as the token");
});

test("errors have Jupyter's shape", async () => {
  const unknown = { message: "Kernel does not exist: nothing", reason: "session_not_found" };
  expect(await server.get("/api/kernels/nothing")).toMatchObject({ status: 404, body: unknown });
  expect(await server.delete("/jupyter/api/kernels/nothing")).toMatchObject({ status: 404, body: unknown });
  const julia = await server.post("/api/kernels", { name: "julia-1.10" });
  expect(julia).toMatchObject({
    status: 400,
    body: { message: "No such kernel: julia-1.10. There are python3, stdlib." },
  });
  expect(await server.post("/api/kernels", "[1")).toMatchObject({ status: 400, body: { reason: "invalid_json" } });
  expect(await server.get("/jupyter/api/nothing")).toMatchObject({
    status: 404,
    body: { reason: "endpoint_not_found" },
  });
  expect((await server.get(`/api/kernels/${await newKernel()}/channels`)).status).toBe(426);
});

test("there are no terminals, and no settings", async () => {
  expect((await server.get("/jupyter/api/terminals")).body).toEqual([]);
  expect((await server.get("/jupyter/api/config/notebook")).body).toEqual({});
  expect((await server.post("/jupyter/api/terminals", {})).status).toBe(404);
});

test("a widget's channel that is opened is closed at once", async () => {
  const socket = await connect();
  socket.send("comm_open", { comm_id: "c1", target_name: "jupyter.widget", data: {} });
  const { content, channel } = await socket.find(({ msg_type: type }) => type === "comm_close");
  expect([channel, content]).toEqual(["iopub", { comm_id: "c1", data: {} }]);
});

test("a message of version 4 is refused in its reply, and the kernel goes on", async () => {
  const socket = await connect();
  const old = { header: { msg_id: "old", msg_type: "execute_request", username: "u", session: "s", version: "4.0" } };
  expect((await socket.done(socket.send("execute_request", { code: "1" }, old) && "old")).reply).toMatchObject({
    status: "error",
    evalue: expect.stringContaining("version 4.0"),
  });
  expect((await socket.ask("execute_request", { code: "print(1)" })).outputs.at(-1)).toEqual(stream("1\n"));
});

test.each([
  ["no JSON", "{", "Invalid JSON"],
  ["an array", "[]", "A message is a JSON object"],
  ["no header", "{}", "header"],
  ["a header that is a list", '{"header":[]}', "header"],
  ["no msg_id", '{"header":{"msg_type":"execute_request"}}', "msg_id"],
  [
    "a header of a thousand members",
    JSON.stringify({
      header: {
        msg_id: "a",
        msg_type: "x",
        ...Object.fromEntries(
          Array(1000)
            .keys()
            .map((i) => [i, 0]),
        ),
      },
    }),
    "too long",
  ],
  ["a header of 20 kB", JSON.stringify({ header: { msg_id: "x".repeat(20_000), msg_type: "x" } }), "too long"],
  ["bytes that are no message", Buffer.from("garbage, garbage, garbage"), "no message of a Jupyter client"],
  ["bytes with offsets behind their end", Buffer.from([0, 0, 0, 1, 0, 0, 255, 255, 1]), "not where it says"],
  ["three bytes", Buffer.from([1, 2, 3]), "too short"],
])("%s closes the connection with a reason", async (_, frame, reason) => {
  const socket = await connect();
  socket.socket.send(frame);
  expect(await socket.closed).toEqual({ code: 1003, reason: expect.stringContaining(reason) });
});

test.each([
  ["too many parts", Buffer.from("ffffffffffffffff", "hex")],
  ["offsets that go back", Buffer.concat([6n, 56n, 40n, 41n, 42n, 43n, 44n].map(littleEndian))],
  [
    "parts that are no JSON",
    Buffer.concat([...[6n, 56n, 57n, 58n, 59n, 60n, 61n].map(littleEndian), Buffer.from("shell")]),
  ],
])("so do binary messages with %s", async (_, frame) => {
  const id = await newKernel();
  const url = `${server.url.replace("http", "ws")}/api/kernels/${id}/channels`;
  const socket = new WebSocket(url, ["v1.kernel.websocket.jupyter.org"]);
  const closed = new Promise((resolve) => socket.on("close", resolve));
  socket.on("open", () => socket.send(frame));
  expect(await closed).toBe(1003);
  expect(socket.protocol).toBe("v1.kernel.websocket.jupyter.org");
});

function littleEndian(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

test("a message with buffers, as before the binary format, is read", async () => {
  const socket = await connect();
  const header = { msg_id: "b", msg_type: "execute_request", username: "u", session: "s", version: "5.3" };
  const json = Buffer.from(JSON.stringify({ header, content: { code: "print(1)" }, channel: "shell" }));
  const head = Buffer.alloc(12);
  for (const [index, word] of [2, 12, 12 + json.length].entries()) head.writeUInt32BE(word, 4 * index);
  socket.socket.send(Buffer.concat([head, json, Buffer.from([1, 2, 3])]));
  expect((await socket.done("b")).outputs.at(-1)).toEqual(stream("1\n"));
});

test("a message of 100 MB ends its connection, and no other", async () => {
  const id = await newKernel();
  const [socket, other] = [await connect(id), await connect(id)];
  socket.socket.send(Buffer.alloc(100 * 1024 * 1024));
  expect((await socket.closed).code).toBe(1009);
  expect((await other.ask("execute_request", { code: "print(1)" })).outputs.at(-1)).toEqual(stream("1\n"));
});

test("what a kernel does not know is refused, and leaves it as it is", async () => {
  const socket = await connect();
  const unknown = await socket.ask("teleport_request");
  expect(unknown.reply).toMatchObject({ status: "error", ename: "UnknownMessage" });
  const debug = await socket.ask("debug_request", { command: "attach", seq: 3 }, { channel: "control" });
  expect(debug.reply).toMatchObject({ success: false, command: "attach", request_seq: 3 });
  expect((await socket.ask("comm_open", { comm_id: "c", target_name: "t" })).reply).toBeUndefined();
  expect((await socket.ask("comm_info_request")).reply).toEqual({ status: "ok", comms: {} });
  expect((await socket.ask("history_request", { hist_access_type: "tail" })).reply).toEqual({
    status: "ok",
    history: [],
  });
  expect((await socket.ask("execute_request", { code: 5 })).reply).toMatchObject({
    status: "error",
    ename: "invalid_request",
  });
  expect((await socket.ask("execute_request", { code: "1" }, { channel: "iopub" })).reply.status).toBe("error");
  // Answers to nothing, and an interrupt of nothing.
  socket.send("input_reply", { value: "x" }, { channel: "stdin" });
  expect((await socket.ask("interrupt_request", {}, { channel: "control" })).reply).toEqual({ status: "ok" });
  expect((await socket.ask("execute_request", { code: "print(1)" })).outputs.at(-1)).toEqual(stream("1\n"));
});

test("silent code, and code beside the cells, has no number; expressions are evaluated after the code", async () => {
  const socket = await connect();
  const silent = await socket.ask("execute_request", { code: "x = 1\nx", silent: true });
  expect([silent.outputs, silent.reply.execution_count]).toEqual([[], 0]);
  const aside = await socket.ask("execute_request", { code: "x + 1", store_history: false });
  expect(aside.outputs.map(([type, { execution_count: count }]) => [type, count])).toEqual([
    ["execute_input", 1],
    ["execute_result", 1],
  ]);
  expect(aside.outputs[1]?.[1].data).toEqual({ "text/plain": "2" });
  const user_expressions = { good: "x + y", bad: "z", none: "None" };
  const { reply } = await socket.ask("execute_request", { code: "y = 41", user_expressions });
  expect(reply).toMatchObject({
    execution_count: 1,
    user_expressions: {
      good: { status: "ok", data: { "text/plain": "42" }, metadata: {} },
      bad: { status: "error", ename: "NameError" },
      none: { status: "ok", data: { "text/plain": "None" } },
    },
  });
  const next = await socket.ask("execute_request", { code: "def f():\n    return 1 / 0\nf()" });
  expect(next.reply).toMatchObject({ execution_count: 2, ename: "ZeroDivisionError" });
  await socket.ask("execute_request", { code: "aside = 1\naside\naside", silent: true });
  // Its source is still its own.
  const again = await socket.ask("execute_request", { code: "f()" });
  expect(again.reply.traceback.join("\n")).toContain("return 1 / 0");
  expect(again.reply.execution_count).toBe(3);
  expect((await socket.ask("execute_request", { code: "  " })).reply).toMatchObject({
    status: "ok",
    execution_count: 3,
  });
  const many = Object.fromEntries(Array.from({ length: 33 }, (_, index) => [`e${index}`, "1"]));
  expect((await socket.ask("execute_request", { code: "1", user_expressions: many })).reply.ename).toBe(
    "invalid_request",
  );
});

test("after an error the cells that wait are aborted, unless the client says that they are not", async () => {
  const socket = await connect();
  const ids = ["1 / 0", "print('a')"].map((code) => socket.send("execute_request", { code }));
  expect((await socket.done(ids[1] as string)).reply).toEqual({ status: "aborted" });
  const more = ["1 / 0", "print('b')"].map((code) => socket.send("execute_request", { code, stop_on_error: false }));
  expect((await socket.done(more[1] as string)).reply.status).toBe("ok");
});

test("of two clients both see what happens; the reply, and what code asks, is for the one that ran it", async () => {
  const id = await newKernel();
  const [first, second] = [await connect(id, "one"), await connect(id, "two")];
  const asked = first.send("execute_request", { code: "print(input('? '))", allow_stdin: true });
  const request = await first.find(({ msg_type: type }) => type === "input_request");
  expect(request).toMatchObject({ channel: "stdin", content: { prompt: "? ", password: false } });
  // Not the one that was asked.
  second.send("input_reply", { value: "second" }, { channel: "stdin" });
  const own = second.send("execute_request", { code: "print('mine')" });
  first.send("input_reply", { value: "first" }, { channel: "stdin" });
  const seen = await second.done(asked);
  expect([seen.reply, seen.outputs.map(([type]) => type)]).toEqual([undefined, ["execute_input", "stream"]]);
  expect(seen.outputs.at(-1)).toEqual(stream("first\n"));
  expect((await second.done(own)).outputs.at(-1)).toEqual(stream("mine\n"));
  expect(second.messages.some(({ msg_type: type }) => type === "input_request")).toBe(false);
  expect((await first.done(own)).reply).toBeUndefined();
});

test("without a sandbox to spare code runs, and cannot ask", async () => {
  const small = await startTestServer({ POOL_SIZE: "1" });
  try {
    const socket = await connect(undefined, "", small);
    expect((await socket.ask("execute_request", { code: "print(1)" })).outputs.at(-1)).toEqual(stream("1\n"));
    expect((await socket.ask("execute_request", { code: "input()" })).reply.ename).toBe("EOFError");
  } finally {
    await small.stop(0);
  }
});

test("what is displayed as JSON goes on as it is, and as text where it is none, or more than a message is looked through for", async () => {
  const socket = await connect();
  const display = async (json: string) => {
    const code = `display({"application/json": ${json}, "text/plain": "p"}, raw=True)`;
    const { outputs } = await socket.ask("execute_request", { code });
    return (outputs.at(-1) as [string, { data: Record<string, unknown> }])[1].data;
  };
  expect(await display(`'{"a": [1.0, 12345678901234567890]}'`)).toEqual({
    "application/json": { a: [1, 12345678901234567000] },
    "text/plain": "p",
  });
  expect((await display("'{no json'"))["application/json"]).toBe("{no json");
  const many = (await display("'[' + '0,' * 1_000_000 + '0]'"))["application/json"];
  expect(many).toMatch(/^\[0,0/);
});

test("a request is done with the scopes of the key that has sent it, whoever else is connected", async () => {
  const [all, few] = ["all-scopes-all-scopes", "execute-only-execute-only"];
  const keyed = await startTestServer({ API_KEYS: `carol:${all},carol:${few}:execute`, POOL_SIZE: "1" });
  try {
    const { body } = await keyed.post("/api/kernels", {}, { "x-api-key": all });
    const open = async (key: string) =>
      await JupyterSocket.open(keyed.url, `/api/kernels/${body.id}/channels?session_id=${key}&token=${key}`);
    const [first, second] = [await open(all), await open(few)];
    const install = async (socket: JupyterSocket) =>
      JSON.stringify((await socket.ask("execute_request", { code: "%pip install no-such-package" })).outputs);
    expect(await install(second)).toContain('lacks the scope \\"packages\\"');
    expect(await install(first)).not.toContain("lacks the scope");
    expect(await install(second)).toContain('lacks the scope \\"packages\\"');
  } finally {
    await keyed.stop(0);
  }
});

test("a client that is away holds no requests of others, and is forgotten where it has missed too much", async () => {
  const id = await newKernel();
  const away = await connect(id, "away");
  const other = await connect(id, "other");
  const busy = other.send("execute_request", { code: "import time; time.sleep(3)" });
  await other.find(({ msg_type: type }) => type === "status");
  away.socket.terminate();
  await away.closed;
  // Each is told of with two states, which have its header.
  for (let count = 0; count < 600; count++) {
    const header = { msg_id: `info-${count}`, msg_type: "kernel_info_request", username: "u".repeat(15_000) };
    other.send("kernel_info_request", {}, { header });
  }
  await other.done(busy);
  const back = await connect(id, "away");
  expect((await back.ask("execute_request", { code: "print(1)" })).outputs.at(-1)).toEqual(stream("1\n"));
  expect(back.messages.some(({ parent_header: parent }) => /^info-/.test(parent?.msg_id))).toBe(false);
});

test("a client that has lost its connection gets what came meanwhile; a second connection of it takes the place of the first", async () => {
  const id = await newKernel();
  const first = await connect(id, "same");
  const asked = first.send("execute_request", {
    code: "print('before', flush=True)\nimport time\ntime.sleep(0.5)\nprint('after')",
  });
  await first.find(({ msg_type: type }) => type === "stream");
  first.socket.terminate();
  await first.closed;
  const back = await connect(id, "same");
  const { outputs, reply } = await back.done(asked);
  // The line's end may come with it.
  expect([outputs.at(-1)?.[1].text.trim(), reply.status]).toEqual(["after", "ok"]);
  const third = await connect(id, "same");
  expect((await back.closed).code).toBe(1008);
  expect((await third.ask("execute_request", { code: "print(1)" })).outputs.at(-1)).toEqual(stream("1\n"));
});

test("a client that leaves in the middle for good ends nothing but its questions", async () => {
  const id = await newKernel();
  const gone = await connect(id);
  gone.send("execute_request", { code: "print('begun', flush=True)\nimport time\ntime.sleep(0.2)\nx = 'ran'" });
  await gone.find(({ msg_type: type }) => type === "stream");
  gone.socket.terminate();
  await gone.closed;
  const next = await connect(id);
  // It waits behind that.
  expect((await next.ask("execute_request", { code: "print(x)" })).outputs.at(-1)).toEqual(stream("ran\n"));
  next.send("execute_request", { code: "input('? ')", allow_stdin: true });
  await next.find(({ msg_type: type }) => type === "input_request");
  next.socket.terminate();
  await next.closed;
  const last = await connect(id);
  const after = last.send("execute_request", { code: "print(x)" });
  await server.post(`/api/kernels/${id}/interrupt`, {});
  expect((await last.done(after)).reply.status).toMatch(/ok|aborted/);
  expect((await last.ask("execute_request", { code: "print(x)" })).outputs.at(-1)).toEqual(stream("ran\n"));
  expect((await server.get("/api/kernels")).body.find((model: { id: string }) => model.id === id)).toMatchObject({
    execution_state: "idle",
    connections: 1,
  });
});

test("a client that does not read keeps nothing but replies and states", async () => {
  const id = await newKernel();
  const slow = await connect(id, "slow");
  const other = await connect(id, "other");
  slow.socket.pause();
  let last = "";
  // Each is about 1 MB: more than a machine's buffers for one connection hold (tcp_rmem and tcp_wmem may say 36 MB), and the server's 8 MB.
  for (let round = 0; round < 100; round++) {
    last = other.send("execute_request", { code: "print('x' * 1_000_000)" });
    await other.done(last);
  }
  slow.socket.resume();
  await slow.done(last);
  const count = (type: string, of: JupyterSocket) => of.messages.filter(({ msg_type }) => msg_type === type).length;
  const notes = slow.messages.filter(({ content }) => content?.name === "stderr").map(({ content }) => content.text);
  expect(count("status", slow)).toBe(count("status", other));
  expect(notes[0]).toMatch(/^\[\d+ messages of output were left out/);
  const leftOut = notes.reduce((sum, text) => sum + Number(/^\[(\d+) /.exec(text)?.[1]), 0);
  expect(count("stream", slow) - notes.length + leftOut).toBeGreaterThanOrEqual(count("stream", other));
  // One for all that was left out until there was room again, which the system's buffers have now and then; not one with each state.
  expect(notes.length).toBeLessThan(count("status", slow) / 2);
});

test("a kernel is there after a restart of the server, with its variables, and its count goes on", async () => {
  const settings = { POOL_SIZE: "1", DATA_DIR: temporaryFolder("jupyter-restart") };
  const before = await startTestServer(settings);
  const id = await newKernel(before);
  const socket = await connect(id, "s", before);
  await socket.ask("execute_request", { code: "x = 42" });
  await before.stop(1000);
  expect((await socket.closed).code).toBe(1001);
  const after = await startTestServer(settings);
  try {
    expect((await after.get("/api/kernels")).body).toMatchObject([{ id, name: "python3", connections: 0 }]);
    const again = await connect(id, "s", after);
    const { outputs, reply } = await again.ask("execute_request", { code: "print(x)" });
    expect([outputs.at(-1), reply.execution_count]).toEqual([stream("42\n"), 2]);
  } finally {
    await after.stop(0);
  }
});

test("a restart goes ahead of what others have waiting in the kernel's session", async () => {
  const kernel = await newKernel();
  const other = await SocketClient.open(server.url);
  const forever = { type: "execute", session: kernel, code: "while True: pass", timeout: 300_000 };
  for (const execution of ["a", "b", "c"]) other.send({ ...forever, execution });
  await other.next({ type: "status", execution: "a", status: "running" });
  for (const execution of ["b", "c"]) await other.next({ type: "status", execution, status: "waiting" });
  expect((await server.post(`/api/kernels/${kernel}/restart`, {})).status).toBe(200);
  expect(await other.next({ type: "result", execution: "a" })).toMatchObject({ status: "cancelled" });
  for (const execution of ["b", "c"])
    expect(await other.next({ type: "error", execution })).toMatchObject({ code: "interrupted" });
  other.socket.close();
});

test("a shutdown ends the kernel and its connections; a restart forgets its variables alone", async () => {
  const id = await newKernel();
  const [socket, other] = [await connect(id), await connect(id)];
  await socket.ask("execute_request", { code: "x = 1" });
  const restart = await socket.ask("shutdown_request", { restart: true }, { channel: "control" });
  expect(restart.reply).toEqual({ status: "ok", restart: true });
  expect((await other.ask("execute_request", { code: "x" })).reply).toMatchObject({
    ename: "NameError",
    execution_count: 1,
  });
  const end = await socket.ask("shutdown_request", { restart: false }, { channel: "control" });
  expect(end.reply).toEqual({ status: "ok", restart: false });
  expect([(await socket.closed).code, (await other.closed).code]).toEqual([1000, 1000]);
  expect((await server.get(`/api/kernels/${id}`)).status).toBe(404);
});

test("any session of a caller's is a kernel by its id, and kernels are sessions", async () => {
  const { body } = await server.post("/api/sessions", { id: "plain" });
  await server.post("/api/execute", { session: body.session.id, code: "x = 7" });
  const socket = await connect("plain");
  expect((await socket.ask("execute_request", { code: "print(x)" })).outputs.at(-1)).toEqual(stream("7\n"));
  const ids = (await server.get("/api/kernels")).body.map(({ id }: { id: string }) => id);
  expect(ids).not.toContain("plain");
  const kernel = await newKernel();
  expect((await server.get(`/api/sessions/${kernel}`)).status).toBe(200);
});

test("a principal has so many connections and no more", async () => {
  const few = await startTestServer({ WEBSOCKETS_PER_PRINCIPAL: "2" });
  try {
    const id = await newKernel(few);
    const [first] = [await connect(id, "a", few), await connect(id, "b", few)];
    await expect(connect(id, "c", few)).rejects.toThrow("429");
    first.close();
    await first.closed;
    // The server hears of it a moment later.
    for (let tries = 0; (await few.get("/api/kernels")).body[0].connections > 1 && tries < 1000; tries++)
      await sleep(5);
    expect((await connect(id, "c", few)).socket.readyState).toBe(WebSocket.OPEN);
  } finally {
    await few.stop(0);
  }
});
