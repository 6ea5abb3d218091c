import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { py } from "../support/engine.ts";
import { connectMcp, type McpTestClient } from "../support/mcp-client.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const KEYS = { alice: "a-key-of-alice-for-mcp", bob: "a-key-of-bob-for-mcp-too", clerk: "a-key-for-files-alone" };
/** One pixel. */
const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";

let server: TestServer;
let alice: McpTestClient;
let bob: McpTestClient;
let clerk: McpTestClient;

beforeAll(async () => {
  const API_KEYS = `alice:${KEYS.alice},bob:${KEYS.bob},clerk:${KEYS.clerk}:files`;
  server = await startTestServer({ API_KEYS, POOL_SIZE: "3" });
  [alice, bob, clerk] = await Promise.all([
    connectMcp(server.url, KEYS.alice),
    connectMcp(server.url, KEYS.bob),
    connectMcp(server.url, KEYS.clerk),
  ]);
});
afterAll(async () => {
  for (const client of [alice, bob, clerk]) await client?.[Symbol.asyncDispose]();
  await server?.stop(0);
});

const sessionOf = async (client = alice): Promise<string> => (await client.call("session_create")).data.session.id;

describe("what a client is told first", () => {
  test("name, instructions, and tools with schemas and annotations", async () => {
    expect(alice.client.getServerVersion()).toMatchObject({ name: "pyodide-express" });
    expect(alice.client.getInstructions()).toContain("session_create");
    const { tools } = await alice.client.listTools();
    expect(tools.map(({ name }) => name).sort()).toEqual([
      "environments_list",
      "files_list",
      "files_read",
      "files_write",
      "install_package",
      "resume_python",
      "run_python",
      "session_checkpoint",
      "session_create",
      "session_delete",
      "session_fork",
      "session_list",
      "session_restore",
    ]);
    for (const { description, inputSchema, outputSchema, title } of tools)
      expect([typeof description, typeof title, inputSchema.type, outputSchema?.type]).toEqual([
        "string",
        "string",
        "object",
        "object",
      ]);
    const hints = Object.fromEntries(tools.map(({ name, annotations }) => [name, annotations]));
    expect(hints.files_list).toMatchObject({ readOnlyHint: true, destructiveHint: false, openWorldHint: false });
    expect(hints.run_python).toMatchObject({ readOnlyHint: false, destructiveHint: true, openWorldHint: true });
    expect(hints.session_delete).toMatchObject({ destructiveHint: true, idempotentHint: true });
  });

  test("tools that the key may not use are not there, and refused", async () => {
    const { tools } = await clerk.client.listTools();
    expect(tools.map(({ name }) => name).sort()).toEqual(["files_list", "files_read", "files_write"]);
    const refused = await clerk.call("run_python", { code: "1" });
    expect(refused).toMatchObject({ isError: true, text: 'This API key lacks the scope "execute"' });
    expect(refused._meta).toMatchObject({ "pyodide-express/code": "missing_scope" });
  });
});

describe("run_python", () => {
  test("returns what code printed and came to", async () => {
    const result = await alice.call("run_python", { code: "print('hello')\n[1.5, 'x', None]" });
    expect(result.text).toBe("hello\n[1.5, 'x', None]");
    expect(result.data).toMatchObject({ status: "completed", stdout: "hello\n", stderr: "", result: [1.5, "x", null] });
    expect(result.isError).toBeUndefined();
    expect((await alice.call("run_python", { code: "x = 1" })).text).toBe("(no output)");
  });

  test("an exception is a result: the tool has done what it was asked", async () => {
    const result = await alice.call("run_python", { code: "print('before')\n1 / 0" });
    expect(result.isError).toBeUndefined();
    expect(result.data).toMatchObject({ status: "error", error: { name: "ZeroDivisionError", line: 2 } });
    expect(result.text).toMatch(/^before\nTraceback.*ZeroDivisionError: division by zero$/s);
  });

  test("what the server has stopped says why", async () => {
    const result = await alice.call("run_python", { code: "while True: pass", timeout_ms: 300 });
    expect(result.data).toMatchObject({ status: "timeout", error: { name: "Timeout" } });
    expect(result.text).toContain("Execution timed out after 300ms");
  });

  test("images come as images, and not a second time", async () => {
    const code = py`
      class Dot:
          def _repr_png_(self):
              import base64
              return base64.b64decode("${PNG}")
          def __repr__(self):
              return "a dot"
      print("see")
      display(Dot())
    `;
    const { content, data, text } = await alice.call("run_python", { code });
    expect(text).toBe("see");
    expect(content[1]).toEqual({ type: "image", mimeType: "image/png", data: PNG });
    expect(data.outputs).toEqual([{ mimeTypes: expect.arrayContaining(["image/png"]), text: "a dot", content: 1 }]);
    expect(JSON.stringify(data)).not.toContain(PNG);
  });

  test("sounds come as sounds, images in HTML as images, and of a video its size: none as base64 in a text", async () => {
    const wave = "IPython.display.Audio([0.0, 0.5] * 50, rate=8000)";
    for (const code of [wave, `IPython.display.display(${wave})`]) {
      const { content, data, text } = await alice.call("run_python", { code: `import IPython.display\n${code}` });
      expect(text).toBe("(see below)");
      const sound = {
        type: "audio",
        mimeType: "audio/wav",
        data: expect.stringMatching(/^UklGR[A-Za-z0-9+/]{200,}=*$/),
      };
      expect(content.slice(1)).toEqual([sound]);
      expect(data.display ?? data.outputs[0]).toMatchObject({ content: 1 });
      expect(JSON.stringify(data)).not.toContain("UklGR");
    }
    const file = py`
      from IPython.display import Audio, HTML, Video, display
      open("a.wav", "wb").write(Audio([0.0, 0.5] * 50, rate=8000).data)
      display(Audio("a.wav"))
      display(HTML('<h1>A dot</h1><img src="data:image/png;base64,${PNG}">'))
      Video(bytes(3000))
    `;
    const { content, text, data } = await alice.call("run_python", { code: file });
    expect(content.map((block) => ("mimeType" in block ? block.mimeType : block.type))).toEqual([
      "text",
      "audio/wav",
      "image/png",
    ]);
    expect(text).toContain('<h1>A dot</h1><img src="(see below)">');
    expect(text).toContain('<source src="(video/mp4, 3000 bytes)"');
    expect(data.outputs).toMatchObject([{ content: 1 }, { content: 2 }]);
    expect(JSON.stringify([text, data])).not.toContain("base64,");
  });

  test("the result comes as it is shown", async () => {
    const code = py`
      class Dot:
          def _repr_png_(self):
              import base64
              return base64.b64decode("${PNG}")
      Dot()
    `;
    const image = await alice.call("run_python", { code });
    expect(image.content).toEqual([
      { type: "text", text: "(see below)" },
      { type: "image", mimeType: "image/png", data: PNG },
    ]);
    expect(image.data.display).toMatchObject({ content: 1 });
    const html = "class H:\n    def _repr_html_(self): return '<b>bold</b>'\nH()";
    expect((await alice.call("run_python", { code: html })).text).toBe("<b>bold</b>");
  });

  test("long output and large results are cut, and said to be", async () => {
    const { text, data } = await alice.call("run_python", { code: "print('x' * 100_000)\n'y' * 1_000_000" });
    expect(text.length).toBeLessThan(60_000);
    expect(text.match(/\d+ characters left out/g)).toEqual(["70001 characters left out", "990002 characters left out"]);
    expect(text.endsWith("write it to a file)")).toBe(true);
    expect(data).toMatchObject({ truncated: true, status: "completed" });
    expect(data).not.toHaveProperty("result");
  });

  test("stdin, variables of the environment, files", async () => {
    const code = "import os\n[input(), os.environ['GREETING'], open('in.txt').read(), len(open('b.bin', 'rb').read())]";
    const files = { "in.txt": "Grüße", "/mnt/data/b.bin": { base64: "AAEC" } };
    const { data } = await alice.call("run_python", { code, stdin: "typed\n", env: { GREETING: "hi" }, files });
    expect(data.result).toEqual(["typed", "hi", "Grüße", 3]);
  });

  test("arguments that are wrong are told to the model, and nothing runs", async () => {
    const wrong = async (args: object) => {
      const { isError, text } = await alice.call("run_python", args);
      expect(isError).toBe(true);
      return text;
    };
    expect(await wrong({})).toContain("No code provided");
    expect(await wrong({ code: 5 })).toBe("Code must be a string.");
    expect(await wrong({ code: "1", timeout_ms: "soon" })).toContain("Timeout must be a positive number");
    expect(await wrong({ code: "1", session: "not-there" })).toBe("Session not found");
    expect(await wrong({ code: "1", environment: "not-there" })).toContain("not-there");
    expect(await wrong({ code: "1", files: { "../x": "1" } })).toBe("Invalid filename");
    expect(await wrong({ code: "1", files: { x: 1 } })).toContain("A file must be text");
    expect(await wrong({ code: "1", tools: [{ name: "a" }, { name: "a" }] })).toContain("two tools");
    expect(await wrong({ code: "1", environmentName: "x" })).toMatch(
      /^run_python has no argument "environmentName"\. Is environment meant\? Its arguments: code, session, /,
    );
    expect(await wrong({ code: "1", volume: 11 })).toMatch(
      /^run_python has no argument "volume"\. Its arguments: code, /,
    );
    expect(await wrong({ code: "1", timeout: 300, timeout_ms: 400 })).toContain('no argument "timeout"');
    expect((await alice.call("environments_list", { all: true })).text).toContain("It has no arguments.");
  });

  test("arguments may have the names that the HTTP API and other tools have", async () => {
    const { data } = await alice.call("run_python", { code: "while True: pass", timeout: 300 });
    expect(data.status).toBe("timeout");
    const session = (await alice.call("session_create", { ttl: 100 })).data.session.id;
    await alice.call("run_python", { code: "x = 1", session });
    expect((await alice.call("session_checkpoint", { session, checkpoint: "a" })).data.checkpoint.name).toBe("a");
    await alice.call("run_python", { code: "x = 2", session });
    expect((await alice.call("session_restore", { session, name: "a" })).isError).toBeUndefined();
    expect((await alice.call("run_python", { code: "x", session_id: session })).data.result).toBe(1);
    expect((await alice.call("install_package", { package: "no/name" })).text).not.toContain("no argument");
  });

  test("tools may be as MCP and Anthropic have them", async () => {
    const schema = { type: "object", properties: { a: { type: "integer" } }, required: ["a"] };
    for (const member of ["parameters", "inputSchema", "input_schema"]) {
      const tools = [{ name: "double", [member]: schema }];
      const { data } = await alice.call("run_python", { code: "double(4)", tools });
      expect(data.toolCalls).toMatchObject([{ name: "double", input: { a: 4 } }]);
      await alice.call("resume_python", { handle: data.handle, results: [{ id: data.toolCalls[0].id, result: 8 }] });
    }
    const both = [{ name: "double", parameters: schema, inputSchema: schema }];
    expect((await alice.call("run_python", { code: "1", tools: both })).text).toContain(
      "both parameters and inputSchema",
    );
  });

  test("what a host adds to the arguments does no harm, and null is as absent", async () => {
    const { data } = await alice.call("run_python", { code: "1 + 1", session: null, toolCallId: "x", action: "y" });
    expect(data.result).toBe(2);
    const ofChat = { code: "2 + 2", sessionId: "chat", action: "sendMessage", chatInput: "Add!" };
    expect((await alice.call("run_python", ofChat)).data.result).toBe(4);
  });

  test("a client that asks for it is told of progress", async () => {
    const told: { progress: number; message?: string | undefined }[] = [];
    await alice.call(
      "run_python",
      { code: "print('step 1')\nprint('step 2')" },
      { onprogress: (one) => told.push(one) },
    );
    await until(() => told.length > 0);
    expect(told[0]).toMatchObject({ progress: 1, message: expect.stringMatching(/^step/) });
    expect(told.map(({ progress }) => progress)).toEqual(told.map((_, index) => index + 1));
  });
});

describe("a session", () => {
  test("keeps variables; forks, checkpoints and the way back", async () => {
    const session = await sessionOf();
    const run = async (code: string, id = session) => (await alice.call("run_python", { code, session: id })).data;
    expect(await run("x = 1\nopen('f', 'w').write('one')")).toMatchObject({ session, executionCount: 1 });
    const kept = await alice.call("session_checkpoint", { session, name: "begin" });
    expect(kept).toMatchObject({ text: 'Kept as "begin".', data: { checkpoint: { name: "begin" } } });
    const fork = (await alice.call("session_fork", { session })).data.session.id;
    await run("x = 2");
    expect(await run("x", fork)).toMatchObject({ result: 1, session: fork });
    const listed = (await alice.call("session_list", { session })).data;
    expect(listed.checkpoints.map(({ name }: { name: string }) => name)).toContain("begin");
    await alice.call("session_restore", { session, checkpoint: "begin" });
    expect(await run("(x, open('f').read())")).toMatchObject({ result: [1, "one"] });
    const { sessions } = (await alice.call("session_list")).data;
    expect(sessions.map(({ id }: { id: string }) => id)).toEqual(expect.arrayContaining([session, fork]));
    await alice.call("session_delete", { session });
    expect(await alice.call("session_list", { session })).toMatchObject({ isError: true, text: "Session not found" });
    expect(await alice.call("session_restore", { session: fork, checkpoint: "no" })).toMatchObject({
      isError: true,
      text: "Checkpoint not found",
    });
  });

  test("is not there for another principal, whatever the tool", async () => {
    const session = await sessionOf();
    await alice.call("files_write", { session, path: "secret.txt", content: "mine" });
    const asked: [string, object][] = [
      ["run_python", { code: "1", session }],
      ["run_python", { code: "1", session, files: { x: "1" } }],
      ["session_fork", { session }],
      ["session_checkpoint", { session }],
      ["session_restore", { session, checkpoint: "@previous" }],
      ["session_list", { session }],
      ["session_delete", { session }],
      ["files_list", { session }],
      ["files_read", { session, path: "secret.txt" }],
      ["files_write", { session, path: "secret.txt", content: "" }],
      ["install_package", { session, packages: ["x"] }],
    ];
    for (const [name, args] of asked)
      expect([name, await bob.call(name, args)]).toMatchObject([name, { isError: true, text: "Session not found" }]);
    const uri = `pyodide://sessions/${session}/home/pyodide/secret.txt`;
    await expect(bob.client.readResource({ uri })).rejects.toMatchObject({ code: -32002 });
    expect((await bob.client.listResources()).resources).toEqual([]);
    expect((await alice.call("files_read", { session, path: "secret.txt" })).text).toBe("mine");
  });
});

describe("files", () => {
  test("whose names are longer than any path are not there, and are not told again whole", async () => {
    const long = "%41/".repeat(10_000);
    const error = await alice.client.readResource({ uri: `pyodide://workspace/${long}` }).catch((thrown) => thrown);
    expect(error).toMatchObject({ code: -32002 });
    expect(error.data.uri.length).toBeLessThan(13_000);
    expect((await alice.call("files_read", { path: "a/".repeat(10_000) })).isError).toBe(true);
  });

  test("are written, listed and read: text, images, bytes, parts", async () => {
    const session = await sessionOf();
    const write = async (path: string, content: string, encoding?: string) =>
      await alice.call("files_write", { session, path, content, encoding });
    expect(await write("notes/a.txt", "äöü")).toMatchObject({
      text: "Wrote /home/pyodide/notes/a.txt (6 bytes).",
      data: { path: "/home/pyodide/notes/a.txt", size: 6 },
    });
    await write("dot.png", PNG, "base64");
    await write("b.bin", "/wD/", "base64");
    expect((await alice.call("files_list", { session })).data.files).toEqual(
      expect.arrayContaining([
        { path: "/home/pyodide/notes/a.txt", size: 6 },
        { path: "/home/pyodide/b.bin", size: 3 },
      ]),
    );
    const read = async (args: object) => await alice.call("files_read", { session, ...args });
    expect(await read({ path: "/home/pyodide/notes/a.txt" })).toMatchObject({
      text: "äöü",
      data: { encoding: "utf-8" },
    });
    for (const home of ["/mnt/data", "/home/user", "mnt/data"]) {
      expect((await write(`${home}/linked.txt`, home)).data.path).toBe("/home/pyodide/linked.txt");
      expect((await read({ path: "linked.txt" })).text).toBe(home);
      expect((await read({ path: `${home}/linked.txt` })).text).toBe(home);
    }
    // Half a character is left for the next part.
    const part = await read({ path: "notes/a.txt", max_bytes: 3 });
    expect(part.data).toMatchObject({ content: "ä", bytes: 2, offset: 0, size: 6 });
    expect(part.text).toContain("go on with offset 2");
    expect((await read({ path: "notes/a.txt", offset: 2 })).data.content).toBe("öü");
    expect((await read({ path: "dot.png" })).content).toEqual([{ type: "image", data: PNG, mimeType: "image/png" }]);
    expect((await read({ path: "b.bin" })).data).toMatchObject({ encoding: "base64", content: "/wD/" });
    // Colours of a terminal are text; what is control characters mostly is not, which JSON writes as six each.
    await write("log.txt", "\x1b[31mred\x1b[0m\n");
    expect((await read({ path: "log.txt" })).data).toMatchObject({
      encoding: "utf-8",
      content: "\x1b[31mred\x1b[0m\n",
    });
    await write("controls.txt", "\x01".repeat(1000));
    const controls = Buffer.alloc(1000, 1).toString("base64");
    expect((await read({ path: "controls.txt" })).data).toMatchObject({ encoding: "base64", content: controls });
    const uri = `pyodide://sessions/${session}/home/pyodide/controls.txt`;
    expect((await alice.client.readResource({ uri })).contents).toMatchObject([{ blob: controls }]);
    expect(await read({ path: "none" })).toMatchObject({ isError: true, text: "File not found" });
    expect(await read({ path: "../../etc/passwd" })).toMatchObject({ isError: true, text: "Invalid filename" });
    expect(await write("x", "no base64!", "base64")).toMatchObject({ isError: true });
  });

  test("without a session are the workspace's, which such code works on", async () => {
    await bob.call("files_write", { path: "shared.txt", content: "1" });
    await bob.call("run_python", { code: "open('shared.txt', 'a').write('2')" });
    expect((await bob.call("files_read", { path: "shared.txt" })).text).toBe("12");
    expect((await clerk.call("files_list")).data).toEqual({ files: [], count: 0 });
  });
});

describe("resources", () => {
  test("are the files of workspace and sessions", async () => {
    const session = await sessionOf();
    await alice.call("files_write", { session, path: "a b/ü.txt", content: "text" });
    await alice.call("files_write", { session, path: "dot.png", content: PNG, encoding: "base64" });
    const { resources } = await alice.client.listResources();
    const uri = `pyodide://sessions/${session}/home/pyodide/a%20b/%C3%BC.txt`;
    expect(resources.find((one) => one.uri === uri)).toMatchObject({ name: "ü.txt", size: 4 });
    expect((await alice.client.readResource({ uri })).contents).toEqual([
      { uri, mimeType: "text/plain", text: "text" },
    ]);
    const image = `pyodide://sessions/${session}/home/pyodide/dot.png`;
    expect((await alice.client.readResource({ uri: image })).contents).toEqual([
      { uri: image, mimeType: "image/png", blob: PNG },
    ]);
    const { resourceTemplates } = await alice.client.listResourceTemplates();
    expect(resourceTemplates.map(({ uriTemplate }) => uriTemplate)).toEqual([
      "pyodide://workspace/{+path}",
      "pyodide://sessions/{session}/{+path}",
    ]);
  });

  test("come in pages", async () => {
    const session = await sessionOf(bob);
    const other = await sessionOf(bob);
    await bob.call("run_python", { code: "for n in range(610): open(f'{n:03}.txt', 'w').close()", session });
    await bob.call("run_python", { code: "open('one', 'w').close()", session: other });
    const uris: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await bob.client.listResources({ ...(cursor !== undefined && { cursor }) });
      expect(page.resources.length).toBeLessThanOrEqual(100);
      uris.push(...page.resources.map(({ uri }) => uri));
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    expect(new Set(uris).size).toBe(uris.length);
    // Of each place so many: more are found by its template.
    expect(uris.filter((uri) => uri.includes(session))).toHaveLength(500);
    expect(uris.filter((uri) => uri.includes(other))).toHaveLength(1);
    const gone = `10@${session}`;
    expect((await bob.client.listResources({ cursor: gone })).resources).toHaveLength(100);
    await bob.call("session_delete", { session });
    for (const cursor of ["next", gone]) {
      await expect(bob.client.listResources({ cursor })).rejects.toMatchObject({ code: -32602 });
    }
  });

  test("that are not there are not found", async () => {
    const session = await sessionOf();
    const uris = ["pyodide://workspace/none.txt", `pyodide://sessions/${session}/none`, "pyodide://sessions/none/x"];
    const odd = [
      "file:///etc/passwd",
      "pyodide://workspace/%zz",
      "pyodide://workspace/../x",
      "pyodide://workspace/%2e%2e/x",
    ];
    for (const uri of [...uris, ...odd])
      await expect(alice.client.readResource({ uri })).rejects.toMatchObject({ code: -32002 });
  });
});

test("packages and environments", async () => {
  const listed = await alice.call("environments_list");
  expect(listed.data).toMatchObject({ default: expect.any(String), environments: expect.any(Array) });
  expect(listed.text).toContain("Python 3.");
  expect(await alice.call("install_package", { packages: ["os"] })).toMatchObject({ isError: true });
  expect(await alice.call("install_package", { packages: ["no such name"] })).toMatchObject({ isError: true });
  const missing = await alice.call("install_package", { packages: ["no-such-package-anywhere"] });
  expect(missing).toMatchObject({ isError: true, _meta: { "pyodide-express/code": "package_not_found" } });
});
