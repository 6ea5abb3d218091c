import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readSecurityLog } from "../support/security-log.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const KEYS =
  "alice:alice-key-of-files:execute+files,bob:bob-key-of-files-x:execute+files,carol:carol-key-of-files:execute";
const as = (name: string) => ({
  "x-api-key": { alice: "alice-key-of-files", bob: "bob-key-of-files-x", carol: "carol-key-of-files" }[name] as string,
});
const alice = as("alice");

let server: TestServer;

beforeAll(async () => {
  server = await startTestServer({ API_KEYS: KEYS, MAX_FILE_SIZE: "100000", WORKSPACE_MAX_MB: "1" });
});
afterAll(async () => await server.stop(0));

async function run(code: string, headers = alice) {
  const { body } = await server.post("/api/execute", { code }, headers);
  expect(body.error).toBeNull();
  return body.result;
}

describe("/api/files", () => {
  test("is the workspace that code sees, both ways", async () => {
    const put = await server.put("/api/files/data/in.csv", "a,b\n1,2\n", alice);
    expect(put.body).toMatchObject({
      success: true,
      file: { path: "/home/pyodide/data/in.csv", name: "in.csv", size: 8 },
    });
    expect(await run("open('data/in.csv').read()")).toBe("a,b\n1,2\n");
    await run("open('/tmp/out', 'w').write('out'); open('/plots/matplotlib/p.png', 'wb').write(b'\\x89PNG\\0')");
    expect((await server.get("/api/files/tmp/out", alice)).body).toBe("out");
    const { body } = await server.get("/api/files", alice);
    expect(body.files.map(({ path }: { path: string }) => path)).toEqual([
      "/home/pyodide/data/in.csv",
      "/plots/matplotlib/p.png",
      "/tmp/out",
    ]);
    expect(body.count).toBe(3);
    expect((await server.delete("/api/files/tmp/out", alice)).status).toBe(200);
    expect((await server.get("/api/files/tmp/out", alice)).status).toBe(404);
    expect(await run("import os; os.path.exists('/tmp/out')")).toBe(false);
  });

  test.each(["mnt/data", "home/user", "home/pyodide"])("knows the home folder as /%s, as code does", async (home) => {
    const { session } = (await server.post("/api/sessions", {}, alice)).body;
    for (const [files, options] of [
      ["/api/files", {}],
      [`/api/sessions/${session.id}/files`, { session: session.id }],
    ] as const) {
      const put = await server.put(`${files}/${home}/sub/in.txt`, "in", alice);
      expect(put.body.file.path).toBe("/home/pyodide/sub/in.txt");
      const code = `open("/${home}/out.txt", "w").write("out"); open("/${home}/sub/in.txt").read()`;
      expect((await server.post("/api/execute", { code, ...options }, alice)).body).toMatchObject({ result: "in" });
      expect((await server.get(`${files}/${home}/out.txt`, alice)).body).toBe("out");
      expect((await server.get(`${files}/out.txt`, alice)).body).toBe("out");
      expect((await server.delete(`${files}/${home}/out.txt`, alice)).status).toBe(200);
      expect((await server.get(`${files}/out.txt`, alice)).status).toBe(404);
      // The folder itself, not a file of that name below it.
      expect((await server.put(`${files}/${home}`, "x", alice)).body.code).toBe("not_a_file");
      expect((await server.get(`${files}/${home}`, alice)).status).toBe(404);
    }
  });

  test.each([
    "a.xlsx",
    "a.tsv",
    "a.parquet",
    "a.png",
    "a.jpg",
    "a.svg",
    "a.ttf",
    "a.woff2",
    "a.docx",
    "a.zip",
    "none",
    ".hidden",
  ])("takes %s, byte for byte, and gives it back as a file to be saved", async (name) => {
    const content = Uint8Array.from({ length: 512 }, (_, index) => index % 256);
    expect((await server.put(`/api/files/${name}`, content, alice)).status).toBe(200);
    expect(await run(`list(open("${name}", "rb").read()) == [i % 256 for i in range(512)]`)).toBe(true);
    const response = await fetch(`${server.url}/api/files/${name}`, { headers: alice });
    expect(new Uint8Array(await response.arrayBuffer())).toEqual(content);
    expect(response.headers.get("content-type")).toBe("application/octet-stream");
    expect(response.headers.get("content-disposition")).toMatch(/^attachment/);
    await server.delete(`/api/files/${name}`, alice);
  });

  test("takes JSON as it is written, and a file of nothing", async () => {
    const json = { "content-type": "application/json", ...alice };
    await server.put("/api/files/x.json", '{"a" : 1.0 }', json);
    expect(await run("open('x.json').read()")).toBe('{"a" : 1.0 }');
    expect((await server.put("/api/files/empty", "", alice)).body.file.size).toBe(0);
    expect(await run("open('empty').read()")).toBe("");
  });

  test("is the caller's alone, and for those who may use files", async () => {
    await server.put("/api/files/mine", "alice's", alice);
    expect((await server.get("/api/files/mine", as("bob"))).status).toBe(404);
    expect((await server.get("/api/files", as("bob"))).body.files).toEqual([]);
    expect((await server.delete("/api/files/mine", as("bob"))).status).toBe(404);
    for (const path of ["/api/files", "/api/files/mine"]) {
      expect((await server.get(path, as("carol"))).status).toBe(403);
      expect((await server.get(path)).status).toBe(401);
    }
    expect((await server.put("/api/files/x", "x", as("carol"))).status).toBe(403);
  });

  test.each(["..%2Fx", "a/..%2F..%2Fx", "%2e%2e/x", "a%5Cb", "a%00", "a%2F%2Fb", "tmp/"])(
    "refuses the path %s",
    async (path) => {
      // What a client's URL parser folds away never arrives.
      for (const reply of [
        await server.put(`/api/files/${path}`, "x", alice),
        await server.get(`/api/files/${path}`, alice),
      ]) {
        expect([400, 404]).toContain(reply.status);
        expect(reply.body.success).toBe(false);
      }
    },
  );

  test("says what is wrong, and loses nothing", async () => {
    await server.put("/api/files/folder/inside", "kept", alice);
    expect((await server.put("/api/files/folder", "x", alice)).status).toBe(409);
    expect((await server.put("/api/files/folder/inside/below", "x", alice)).status).toBe(409);
    expect((await server.delete("/api/files/folder", alice)).status).toBe(409);
    expect((await server.put("/api/files/large", new Uint8Array(100_001), alice)).status).toBe(413);
    const fill = new Uint8Array(100_000);
    const statuses: number[] = [];
    for (let index = 0; index < 12; index++) {
      statuses.push((await server.put(`/api/files/fill/${index}`, fill, alice)).status);
    }
    expect(statuses.at(-1)).toBe(413);
    expect((await server.get("/api/files/folder/inside", alice)).body).toBe("kept");
    expect((await server.delete("/api/files/fill/0", alice)).status).toBe(200);
  });

  test("is in the security log", async () => {
    await server.put("/api/files/logged", "x", { ...alice, "x-request-id": "put-1" });
    await server.delete("/api/files/logged", { ...alice, "x-request-id": "delete-1" });
    const lines = (await readSecurityLog(server.config)).filter(({ requestId }) =>
      /^(put|delete)-1$/.test(requestId ?? ""),
    );
    expect(lines).toMatchObject([
      { event: "file_write", principal: "alice", details: { path: "/home/pyodide/logged", size: 1 } },
      { event: "file_delete", principal: "alice", details: { path: "/home/pyodide/logged" } },
    ]);
  });
});

describe("UPLOAD_TYPES", () => {
  test("says what /api/upload takes", async () => {
    const other = await startTestServer({ UPLOAD_TYPES: "xlsx, .TSV" });
    try {
      expect((await other.upload("a.xlsx", "x")).status).toBe(200);
      expect((await other.upload("a.tsv", "x")).status).toBe(200);
      expect((await other.upload("a.csv", "x")).body.error).toBe(
        "File type .csv not allowed. Allowed types: .xlsx, .tsv",
      );
    } finally {
      await other.stop(0);
    }
  });

  test.each(["none", "a/b", ".."])("%j stops the start", async (value) => {
    await expect(startTestServer({ UPLOAD_TYPES: value })).rejects.toThrow("UPLOAD_TYPES");
  });
});
