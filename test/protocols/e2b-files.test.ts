import { FileNotFoundError, InvalidArgumentError, type Sandbox, TimeoutError } from "@e2b/code-interpreter";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "../support/until.ts";
import { ALICE, type E2bServer, startE2bServer } from "./e2b-sdk.ts";

let server: E2bServer;
let sandbox: Sandbox;

beforeAll(async () => {
  server = await startE2bServer({ MAX_FILE_SIZE: String(2 ** 20) });
  sandbox = await server.sandbox();
});
afterAll(async () => await server.stop(0));

const envd = (port = 49983) => ({ "e2b-sandbox-id": sandbox.sandboxId, "e2b-sandbox-port": String(port) });
const rpc = async (method: string, body: unknown, headers: Record<string, string> = {}) =>
  await server.ask(`/${method}`, { method: "POST", body, headers: { ...envd(), ...headers } });

describe("files", () => {
  test.each(["/home/user/a.txt", "a.txt", "~/a.txt", "/home/user/./b/../a.txt", "/home/pyodide/a.txt"])(
    "%s is what code finds",
    async (path) => {
      const content = `of ${path}: é`;
      expect(await sandbox.files.write(path, content)).toMatchObject({
        path: "/home/user/a.txt",
        name: "a.txt",
        type: "file",
      });
      expect((await sandbox.runCode("open('/home/user/a.txt').read()")).text).toBe(content);
      expect(await sandbox.files.read("/home/user/a.txt")).toBe(content);
    },
  );

  test("that code writes are read, in every format", async () => {
    await sandbox.runCode("open('/home/user/bytes', 'wb').write(bytes(range(256))); open('empty', 'w').close()");
    const bytes = Uint8Array.from({ length: 256 }, (_, n) => n);
    expect(await sandbox.files.read("bytes", { format: "bytes" })).toEqual(bytes);
    expect(new Uint8Array(await (await sandbox.files.read("bytes", { format: "blob" })).arrayBuffer())).toEqual(bytes);
    const chunks: Uint8Array[] = [];
    for await (const chunk of await sandbox.files.read("bytes", { format: "stream" })) chunks.push(chunk as Uint8Array);
    expect(new Uint8Array(Buffer.concat(chunks))).toEqual(bytes);
    expect(await sandbox.files.read("empty")).toBe("");
  });

  test("are written several at a time, as a form, as bytes and compressed", async () => {
    const files = [
      { path: "many/one", data: "1" },
      { path: "/tmp/two", data: new Blob(["2"]) },
    ];
    expect((await sandbox.files.write(files)).map(({ path }) => path)).toEqual(["/home/user/many/one", "/tmp/two"]);
    await sandbox.files.write("octets", "octets", { useOctetStream: true });
    await sandbox.files.write("zipped", "zipped", { gzip: true });
    await sandbox.files.write("streamed", new Blob(["streamed"]).stream());
    const read = ["many/one", "/tmp/two", "octets", "zipped", "streamed"].map(
      async (path) => await sandbox.files.read(path),
    );
    expect(await Promise.all(read)).toEqual(["1", "2", "octets", "zipped", "streamed"]);
  });

  test("are described, listed, made, moved and removed", async () => {
    expect(await sandbox.files.makeDir("tree/a/b")).toBe(true);
    expect(await sandbox.files.makeDir("tree/a")).toBe(false);
    await sandbox.files.write("tree/file", "123");
    const info = await sandbox.files.getInfo("tree/file");
    expect(info).toMatchObject({
      name: "file",
      type: "file",
      path: "/home/user/tree/file",
      size: 3,
      mode: 0o644,
      permissions: "-rw-r--r--",
      owner: "user",
      group: "user",
    });
    expect(Math.abs(Date.now() - Number(info.modifiedTime))).toBeLessThan(60_000);
    expect((await sandbox.files.getInfo("tree")).type).toBe("dir");
    const list = async (path: string, depth?: number) =>
      (await sandbox.files.list(path, { ...(depth && { depth }) })).map((entry) => entry.path);
    expect(await list("tree")).toEqual(["/home/user/tree/a", "/home/user/tree/file"]);
    expect(await list("/home/user/tree", 2)).toEqual([
      "/home/user/tree/a",
      "/home/user/tree/a/b",
      "/home/user/tree/file",
    ]);
    expect(await list("/")).toEqual(["/home", "/plots", "/tmp"]);
    expect(await list("/home")).toEqual(["/home/user"]);
    expect(await sandbox.files.rename("tree", "moved/there")).toMatchObject({
      path: "/home/user/moved/there",
      type: "dir",
    });
    expect(await sandbox.files.read("moved/there/file")).toBe("123");
    expect(await sandbox.files.exists("tree")).toBe(false);
    await sandbox.files.write("other", "o");
    await sandbox.files.rename("other", "moved/there/file");
    expect(await sandbox.files.read("moved/there/file")).toBe("o");
    await sandbox.files.remove("moved");
    expect(await sandbox.files.exists("moved/there/file")).toBe(false);
    await sandbox.files.remove("moved");
    expect((await sandbox.runCode("import os; os.path.exists('/home/user/moved')")).text).toBe("False");
  });

  test("that are not there, or folders, are told apart", async () => {
    await sandbox.files.makeDir("folder");
    await sandbox.files.write("plain", "");
    await expect(sandbox.files.read("nothing")).rejects.toThrow(FileNotFoundError);
    await expect(sandbox.files.getInfo("nothing")).rejects.toThrow(FileNotFoundError);
    await expect(sandbox.files.list("nothing")).rejects.toThrow(FileNotFoundError);
    await expect(sandbox.files.rename("nothing", "x")).rejects.toThrow(FileNotFoundError);
    await expect(sandbox.files.read("folder")).rejects.toThrow("is a directory");
    await expect(sandbox.files.write("folder", "")).rejects.toThrow("is a directory");
    await expect(sandbox.files.list("plain")).rejects.toThrow("not a directory");
    await expect(sandbox.files.makeDir("plain")).rejects.toThrow("not a directory");
    await expect(sandbox.files.makeDir("plain/below")).rejects.toThrow("not a directory");
    await expect(sandbox.files.write("plain/below", "")).rejects.toThrow("not a directory");
    await expect(sandbox.files.rename("folder", "folder/inside")).rejects.toThrow("into itself");
    await expect(sandbox.files.rename("folder", "plain")).rejects.toThrow("another kind");
    await expect(sandbox.files.rename("/tmp", "x")).rejects.toThrow("cannot be moved");
  });

  test.each(["/etc/passwd", "../../etc/passwd", "/home/user/../../lib/x", "/home/other", "/", "/tmp/../x"])(
    "%s is no place for files",
    async (path) => {
      await expect(sandbox.files.write(path, "x")).rejects.toThrow(InvalidArgumentError);
      await expect(sandbox.files.rename("plain", path)).rejects.toThrow(InvalidArgumentError);
      await expect(sandbox.files.remove(path)).rejects.toThrow(InvalidArgumentError);
    },
  );

  test("of one name twice, a form without a file, and one that is cut off are refused", async () => {
    const twice = sandbox.files.write([
      { path: "same", data: "1" },
      { path: "./same", data: "2" },
    ]);
    await expect(twice).rejects.toThrow("you cannot upload multiple files to the same path '/home/user/same'");
    expect(await sandbox.files.exists("same")).toBe(false);
    const send = async (body: string | FormData, headers: Record<string, string> = {}, path = "/files") => {
      const sent = { method: "POST", body, headers: { ...envd(), "x-api-key": ALICE, ...headers } };
      const response = await fetch(`${server.url}${path}`, sent);
      return { status: response.status, body: await response.json() };
    };
    const form = new FormData();
    form.append("file", "text");
    expect(await send(form)).toMatchObject({ status: 400, body: { code: 400 } });
    expect(await send(new FormData())).toMatchObject({ status: 400 });
    const cut = '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nab';
    expect(await send(cut, { "content-type": "multipart/form-data; boundary=x" })).toMatchObject({ status: 400 });
    expect(await send("x", { "content-type": "multipart/form-data" })).toMatchObject({ status: 400 });
    expect(await send("x", { "content-type": "application/octet-stream" })).toMatchObject({ status: 400 });
    expect(await send("x", {}, "/files?path=a&path=b")).toMatchObject({ status: 400 });
    await expect(sandbox.files.write("large", "x".repeat(2 ** 20 + 1))).rejects.toThrow(
      /413.*at most \d+ bytes \(the server's MAX_FILE_SIZE\)/,
    );
  });

  test("are there for the users that E2B has, and no other", async () => {
    await sandbox.files.write("mine", "m", { user: "user" });
    expect(await sandbox.files.read("mine", { user: "root" })).toBe("m");
    await expect(sandbox.files.read("mine", { user: "mallory" })).rejects.toThrow("unknown user mallory");
    await expect(sandbox.files.list("", { user: "mallory" })).rejects.toThrow("unknown user mallory");
  });

  test("have signed addresses, for one file and one way, until their time is over", async () => {
    await sandbox.files.write("signed", "s");
    // The address of a sandbox is that of its host: here the headers say it.
    const get = async (url: string, method = "GET") => {
      const response = await fetch(url, {
        method,
        headers: envd(),
        ...(method === "POST" && { body: new FormData() }),
      });
      return response.status;
    };
    const url = await sandbox.downloadUrl("signed");
    const withoutHeaders = await fetch(url);
    expect([withoutHeaders.status, await withoutHeaders.text()]).toEqual([
      404,
      expect.stringContaining("E2b-Sandbox-Id"),
    ]);
    expect(await get(url)).toBe(200);
    expect(await get(await sandbox.downloadUrl("signed", { useSignatureExpiration: 60 }))).toBe(200);
    expect(await get(await sandbox.downloadUrl("signed", { useSignatureExpiration: -1 }))).toBe(401);
    expect(await get(await sandbox.downloadUrl("signed", { user: "root" }))).toBe(200);
    expect(await get(url.replace("path=signed", "path=mine"))).toBe(401);
    expect(await get(url.replace("signature=v1_", "signature=v1_x"))).toBe(401);
    expect(await get(url, "POST")).toBe(401);
    const form = new FormData();
    form.append("file", new Blob(["uploaded"]), "any");
    const uploaded = await fetch(await sandbox.uploadUrl("signed"), { method: "POST", body: form, headers: envd() });
    expect(await uploaded.json()).toEqual([{ path: "/home/user/signed", name: "signed", type: "file" }]);
    expect(await sandbox.files.read("signed")).toBe("uploaded");
    expect(await get(url.replace("/files", "/envs"))).toBe(401);
  });
});

describe("what is said of a sandbox", () => {
  test("its use, and its variables", async () => {
    const own = await server.sandbox({ envs: { A: "b" } });
    const headers = { "e2b-sandbox-id": own.sandboxId, "e2b-sandbox-port": "49983" };
    expect(await server.ask("/envs", { headers })).toMatchObject({ status: 200, body: { A: "b" } });
    expect(await server.ask("/metrics", { headers })).toMatchObject({
      status: 200,
      body: { cpu_count: 1, disk_used: 0 },
    });
    expect(await server.ask("/health", { headers })).toMatchObject({ status: 204, text: "" });
    expect((await server.ask("/health", { headers: { ...headers, "e2b-sandbox-port": "8080" } })).status).toBe(404);
  });
});

describe("watching", () => {
  test("a folder tells of what code and requests change in it", async () => {
    await sandbox.files.makeDir("seen/below");
    await sandbox.files.write("seen/old", "1");
    const watch = async (recursive: boolean) => {
      const events: string[] = [];
      const handle = await sandbox.files.watchDir("seen", ({ type, name }) => void events.push(`${type} ${name}`), {
        recursive,
      });
      return { events, stop: async () => await handle.stop() };
    };
    const [flat, deep] = [await watch(false), await watch(true)];
    await sandbox.files.write("seen/new", "1");
    await sandbox.runCode("open('seen/old', 'a').write('more'); open('seen/below/inner', 'w').close()");
    await sandbox.files.remove("seen/new");
    await until(() => deep.events.includes("create below/inner") && flat.events.includes("write old"));
    expect(flat.events.some((event) => event.includes("inner"))).toBe(false);
    await flat.stop();
    await deep.stop();
  });

  test("by questions is the same, and ends", async () => {
    await sandbox.files.makeDir("asked");
    const { body } = await rpc("filesystem.Filesystem/CreateWatcher", { path: "asked" });
    const { watcherId } = body as { watcherId: string };
    await sandbox.files.write("asked/a", "1");
    const events = async () => (await rpc("filesystem.Filesystem/GetWatcherEvents", { watcherId })).body;
    expect(await events()).toEqual({
      events: [
        { name: "a", type: "EVENT_TYPE_CREATE" },
        { name: "a", type: "EVENT_TYPE_WRITE" },
      ],
    });
    expect(await events()).toEqual({ events: [] });
    await sandbox.files.remove("asked/a");
    expect(await events()).toEqual({ events: [{ name: "a", type: "EVENT_TYPE_REMOVE" }] });
    expect((await rpc("filesystem.Filesystem/RemoveWatcher", { watcherId })).status).toBe(200);
    expect(await rpc("filesystem.Filesystem/GetWatcherEvents", { watcherId })).toMatchObject({
      status: 404,
      body: { code: "not_found" },
    });
  });

  test("what cannot be watched is refused, and a watch ends with its time and its sandbox", async () => {
    await expect(sandbox.files.watchDir("nothing", () => {})).rejects.toThrow("does not exist");
    await sandbox.files.write("plain", "");
    await expect(sandbox.files.watchDir("plain", () => {})).rejects.toThrow("not a directory");
    const own = await server.sandbox();
    const ended = Promise.withResolvers<Error | undefined>();
    await own.files.watchDir("", () => {}, { onExit: (error) => ended.resolve(error) });
    await own.kill();
    expect(await ended.promise).toBeInstanceOf(TimeoutError);
    const late = Promise.withResolvers<Error | undefined>();
    await sandbox.files.watchDir("", () => {}, { timeoutMs: 300, onExit: (error) => late.resolve(error) });
    expect(await late.promise).toBeInstanceOf(TimeoutError);
    let most = 0;
    for (; most < 100; most++)
      if ((await rpc("filesystem.Filesystem/CreateWatcher", { path: "" })).status !== 200) break;
    expect(most).toBe(64);
  });
});

describe("RPCs that cannot be read", () => {
  test.each([
    ["no JSON", "{", {}, 400, "invalid_argument"],
    ["another kind of argument", { path: 1 }, {}, 400, "invalid_argument"],
    ["Protobuf", "x", { "content-type": "application/proto" }, 415, "unimplemented"],
  ])("%s is refused in Connect's form", async (_, body, headers, status, code) => {
    expect(await rpc("filesystem.Filesystem/Stat", body, headers)).toMatchObject({ status, body: { code } });
  });

  test("a method that is not there, and the interpreter's port, are refused", async () => {
    expect((await rpc("filesystem.Filesystem/Nothing", {})).body).toMatchObject({ code: "not_found" });
    const headers = envd(49999);
    expect((await server.ask("/filesystem.Filesystem/Stat", { method: "POST", body: {}, headers })).status).toBe(404);
  });

  test.each([
    ["cut off", Buffer.from([0, 0])],
    ["longer than its envelope", Buffer.from([0, 0, 0, 0, 1, 0x7b, 0x7d])],
    ["compressed", Buffer.from([1, 0, 0, 0, 2, 0x7b, 0x7d])],
    ["no JSON", Buffer.from([0, 0, 0, 0, 1, 0x7b])],
    ["of another type", Buffer.from([0, 0, 0, 0, 2, 0x5b, 0x5d])],
  ])("a stream's message that is %s is answered in its last envelope", async (_, body) => {
    const response = await fetch(`${server.url}/process.Process/Start`, {
      method: "POST",
      headers: { ...envd(), "x-api-key": ALICE, "content-type": "application/connect+json" },
      body,
    });
    const reply = Buffer.from(await response.arrayBuffer());
    expect([response.status, reply[0]]).toEqual([200, 2]);
    expect(JSON.parse(reply.subarray(5).toString())).toEqual({
      error: { code: "invalid_argument", message: expect.any(String) },
    });
  });
});

describe("a form", () => {
  const send = async (body: string | Buffer, path = "/files") => {
    const headers = { ...envd(), "x-api-key": ALICE, "content-type": "multipart/form-data; boundary=X" };
    const response = await fetch(`${server.url}${path}`, {
      method: "POST",
      headers,
      body: new Uint8Array(Buffer.from(body)),
    });
    return { status: response.status, text: await response.text() };
  };
  const part = (name: string, content: string, more = "") =>
    `--X\r\n${more}Content-Disposition: form-data; name="file"; filename="${name}"\r\n\r\n${content}\r\n`;

  test("has names as clients send them, and files of any bytes", async () => {
    expect((await send(`${part("é %22q%22.txt", "a--X", "Content-Type: text/plain\r\n")}--X--\r\n`)).status).toBe(200);
    expect(await sandbox.files.read('é "q".txt')).toBe("a--X");
    expect((await send(`${part("given", "by path")}--X--\r\n`, "/files?path=deep/er")).status).toBe(200);
    expect(await sandbox.files.read("deep/er")).toBe("by path");
  });

  test.each([
    ["parts", Array.from({ length: 1001 }, (_, n) => part(`f${n}`, "1")).join(""), 400, "Too many files"],
    ["characters of a name", part("%22".repeat(20_000), "1"), 400, "cannot be read"],
    ["headers", part("f", "1", "A: b\r\n".repeat(20_000)), 400, "cannot be read"],
    ["bytes of a file", part("f", "1".repeat(2 ** 20 + 1)), 413, "too large"],
    ["fields", '--X\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'.repeat(30), 400, "cannot be read"],
  ])("of too many %s is refused", async (_name, parts, status, text) => {
    expect(await send(`${parts}--X--\r\n`)).toMatchObject({ status, text: expect.stringContaining(text) });
  });

  test("that is cut off, or has a text for the file, is refused", async () => {
    expect((await send(part("f", "1"))).status).toBe(400);
    const field = '--X\r\nContent-Disposition: form-data; name="file"\r\n\r\n1\r\n--X--\r\n';
    expect(await send(field)).toMatchObject({ status: 400, text: expect.stringContaining("must be a file") });
  });
});

test.each(["/files/", "/FILES", "/Files/"])("JSON that is written at %s is kept as it is", async (path) => {
  const headers = { ...envd(), "x-api-key": ALICE, "content-type": "application/json" };
  const url = `${server.url}${path}?path=kept.json`;
  expect((await fetch(url, { method: "POST", headers, body: '{"a": 1}' })).status).toBe(200);
  expect(await sandbox.files.read("kept.json")).toBe('{"a": 1}');
});
