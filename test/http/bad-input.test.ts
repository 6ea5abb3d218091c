import { readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { verifySecurityLog } from "../../src/security-log/verify.ts";
import { py } from "../support/engine.ts";
import { openRawRequest } from "../support/raw-request.ts";
import { readSecurityLog } from "../support/security-log.ts";
import { type Reply, startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const MIB = 1024 * 1024;
const BOUNDARY = "----boundary";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
  await writeFile(path.join(server.config.DATA_DIR, "canary.csv"), "canary");
});
afterAll(async () => await server.stop(0));
afterEach(async () => {
  expect(await temporaryFiles()).toEqual([]);
  expect(await readFile(path.join(server.config.DATA_DIR, "canary.csv"), "utf8")).toBe("canary");
  expect((await server.post("/api/execute", { code: "6 * 7" })).body.result).toBe(42);
});

const temporaryFiles = () => readdir(server.config.UPLOAD_DIR);

function expectError(reply: Pick<Reply, "status" | "body">, status: number, error: string | RegExp): void {
  expect(reply.body).toMatchObject({
    success: false,
    error: typeof error === "string" ? error : expect.stringMatching(error),
  });
  expect(reply.status).toBe(status);
}

/** Sends exactly these bytes; `fetch` would tidy up paths and headers. */
async function raw(
  head: readonly string[],
  body: string | Uint8Array = "",
  to = server.url,
): Promise<Pick<Reply, "status" | "body">> {
  const request = await openRawRequest(to, [...head, ...(body.length > 0 ? [`Content-Length: ${body.length}`] : [])]);
  if (body.length > 0) await request.send(body);
  const text = await request.reply();
  const status = Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1]);
  const content = text.slice(text.indexOf("\r\n\r\n") + 4).replace(/^[0-9a-f]+\r\n([\s\S]*)\r\n0\r\n\r\n$/, "$1");
  return { status, body: content.startsWith("{") ? JSON.parse(content) : content };
}

interface Part {
  /** Of `Content-Disposition`, after `form-data; `. */
  readonly disposition: string;
  readonly content: string | Uint8Array;
}

function multipart(parts: readonly Part[], end = `--${BOUNDARY}--\r\n`): Buffer {
  const chunks = parts.flatMap(({ disposition, content }) => [
    Buffer.from(`--${BOUNDARY}\r\nContent-Disposition: form-data; ${disposition}\r\n\r\n`),
    Buffer.from(content),
    Buffer.from("\r\n"),
  ]);
  return Buffer.concat([...chunks, Buffer.from(end)]);
}

const UPLOAD_HEAD = ["POST /api/upload HTTP/1.1", `Content-Type: multipart/form-data; boundary=${BOUNDARY}`];
const uploadRaw = (parts: readonly Part[]) => raw(UPLOAD_HEAD, multipart(parts));
const csv = (name = "a.csv", content: string | Uint8Array = "x\n1\n"): Part => ({
  disposition: `name="csvFile"; filename="${name}"`,
  content,
});

describe("path traversal in a URL", () => {
  const routes: [string, string, string][] = [
    ["DELETE", "/api/uploaded-files/", ""],
    ["DELETE", "/api/pyodide-files/", ""],
    ["GET", "/api/pyodide-files/", ""],
    ["GET", "/api/file-info/", ""],
    ["GET", "/api/plots/matplotlib/", ""],
    ["GET", "/api/plots/", "/a.png"],
  ];
  const names = [
    "..",
    ".",
    "%2e%2e",
    "%2E.",
    "..%2Fcanary.csv",
    "..%2f..%2f..%2f..%2fetc%2fpasswd",
    "..%252fcanary.csv",
    "..%25252fcanary.csv",
    "%252e%252e%252fcanary.csv",
    "..%5ccanary.csv",
    "..%255ccanary.csv",
    "%2fetc%2fpasswd",
    "%252fetc%252fpasswd",
    "....%2f%2fetc",
    "a.csv%00",
    "a.csv%2500.png",
    "C:%5cboot.ini",
    "..%ef%bc%8fetc",
    "x".repeat(256),
    "%F0%9F%98%80".repeat(64),
  ];

  test.each(routes)("%s %s…%s refuses each spelling", async (method, before, after) => {
    for (const name of names) {
      const reply = await raw([`${method} ${before}${name}${after} HTTP/1.1`]);
      expect({ name, status: reply.status, error: reply.body.error }).toEqual({
        name,
        status: 400,
        error: "Invalid filename",
      });
    }
  });

  test.each(routes)("%s %s…%s: a name with plain slashes is no route of ours", async (method, before, after) => {
    for (const name of ["../../canary.csv", "../../../../etc/passwd", "/etc/passwd", "a/../../canary.csv"]) {
      expectError(await raw([`${method} ${before}${name}${after} HTTP/1.1`]), 404, "Endpoint not found");
    }
  });

  test("bytes that are no UTF-8, and escapes that are none, are errors of the client's", async () => {
    for (const name of ["..%c0%afetc", "%c0%ae%c0%ae", "%zz", "%", "%ff"]) {
      expectError(await raw([`GET /api/file-info/${name} HTTP/1.1`]), 400, /^Bad request/);
    }
  });

  test("a name that only looks like a path is one like any other", async () => {
    for (const name of ["%E2%80%A5", "%EF%BC%8Fetc", "%E2%88%95etc", "~root", "a:b", "__proto__", "constructor"]) {
      expectError(await raw([`GET /api/pyodide-files/${name} HTTP/1.1`]), 404, /^File .* not found$/);
    }
  });
});

describe("names in a multipart body", () => {
  afterAll(async () => void (await server.post("/api/clear-all-files", {})));

  test.each([
    ["../../canary.csv", "canary.csv"],
    ["../../../../../../../../tmp/owned.csv", "owned.csv"],
    ["/etc/cron.d/owned.csv", "owned.csv"],
    ["..\\\\..\\\\owned.csv", "owned.csv"],
    ["C:\\\\fakepath\\\\owned.csv", "owned.csv"],
    ["..%2f..%2fowned.csv", "_._2f_._2fowned.csv"],
    ["..%252f..%252fowned.csv", "_._252f_._252fowned.csv"],
    ["....csv", "___.csv"],
    ["a..csv", "a_.csv"],
    ["a%0d%0aSet-Cookie: x=1.csv", "a__Set-Cookie__x_1.csv"],
    ["a%0A.csv", "a_.csv"],
    ["\u202evsc.csv", "_vsc.csv"],
    ["a\u2028b.csv", "a_b.csv"],
    ["a\u0085\u009b31mb.csv", "a__31mb.csv"],
    ["<img src=x onerror=alert(1)>.csv", "_img_src_x_onerror_alert_1__.csv"],
    ["'; DROP TABLE uploads; --.csv", "___DROP_TABLE_uploads__--.csv"],
    ["$(id).csv", "__id_.csv"],
    ["__proto__.csv", "__proto__.csv"],
    ["-rf.csv", "-rf.csv"],
    ["😀.csv", "__.csv"],
    ["caf\u0065\u0301.csv", "cafe_.csv"],
  ])("%j is stored as %s", async (name, expected) => {
    // Of two names that become the same the second gets a number.
    await server.post("/api/clear-all-files", {});
    const { status, body } = await uploadRaw([csv(name)]);
    expect({ status, stored: body.file?.pyodideFilename }).toEqual({ status: 200, stored: expected });
    expect((await server.get(`/api/file-info/${expected}`)).body).toMatchObject({
      uploadedFile: { exists: true, size: 4 },
      pyodideFile: { exists: true, size: 4 },
    });
  });

  test("RFC 5987's spelling is no way around", async () => {
    for (const encoded of ["..%2F..%2Fowned.csv", "%2Fetc%2Fowned.csv", "..%5Cowned.csv"]) {
      const { status, body } = await uploadRaw([
        { disposition: `name="csvFile"; filename*=UTF-8''${encoded}`, content: "x\n1\n" },
      ]);
      expect(status).toBe(200);
      expect(body.file.pyodideFilename).toMatch(/^[\w.-]*owned\.csv$/);
      expect(body.file.pyodideFilename).not.toContain("..");
    }
  });

  test("a name in Latin-1, and one of 5,000 characters", async () => {
    const latin1 = multipart([csv("caf@.csv")]);
    latin1[latin1.indexOf("@")] = 0xe9;
    expectError(await raw(UPLOAD_HEAD, latin1), 400, "The file name is not valid UTF-8");
    const long = await uploadRaw([csv(`${"n".repeat(5000)}.csv`)]);
    expect(long.status).toBe(200);
    expect(long.body.file.pyodideFilename).toBe(`${"n".repeat(196)}.csv`);
    expect((await server.get("/api/uploaded-files")).status).toBe(200);
  });

  test("no name reaches the host's file system", async () => {
    const all = await readdir(server.config.DATA_DIR, { recursive: true });
    expect(all.filter((name) => /owned|Set-Cookie|proto|DROP|caf|nnn/.test(name))).toEqual([]);
    expect(await readdir("/tmp")).not.toContain("owned.csv");
  });
});

describe("symbolic links that Python makes", () => {
  const secret = "root:";

  test("bring no file of the host out by any endpoint", async () => {
    const { body } = await server.post("/api/execute", {
      code: py`
        import os
        os.symlink("/etc/passwd", "link.csv")
        os.symlink("/etc", "etc")
        os.symlink("../../../../etc/passwd", "relative.csv")
        os.symlink("/etc/passwd", "/plots/matplotlib/p.png")
        os.symlink("/proc/self/environ", "/tmp/environ")
        os.rmdir("/plots/seaborn")
        os.symlink("/etc", "/plots/seaborn")
        found = []
        for name in ("link.csv", "etc/passwd", "relative.csv", "/plots/seaborn/passwd", "/tmp/environ"):
            try:
                found.append(open(name).read())
            except OSError:
                found.append(None)
        found
      `,
    });
    expect(JSON.stringify(body)).not.toContain(secret);
    expect((await server.get("/api/pyodide-files")).body.result.files).toEqual([]);
    expect((await server.post("/api/extract-plots", {})).body.extracted_files).toEqual([]);
    for (const name of ["link.csv", "etc", "relative.csv"]) {
      expectError(await server.get(`/api/pyodide-files/${name}`), 404, `File ${name} not found`);
      expectError(await server.delete(`/api/pyodide-files/${name}`), 404, `File ${name} not found`);
      expect((await server.get(`/api/file-info/${name}`)).body.pyodideFile).toEqual({ exists: false });
    }
    expectError(await server.get("/api/plots/matplotlib/p.png"), 404, "File p.png not found");
    expectError(await server.get("/api/plots/seaborn/passwd"), 404, "File passwd not found");
  });

  test("do not lead an upload of their name anywhere", async () => {
    await server.post("/api/execute", {
      code: 'import os; os.symlink("/etc/passwd", "data.csv"); os.symlink("/etc", "uploaded_file.csv")',
    });
    expect((await server.upload("data.csv", "x\n1\n")).body.analysis).toMatchObject({ success: true, shape: [1, 1] });
    expect((await server.get("/api/pyodide-files/data.csv")).body).toBe("x\n1\n");
    expect((await readFile("/etc/passwd", "utf8")).startsWith(secret)).toBe(true);
    await server.post("/api/clear-all-files", {});
  });
});

describe("uploads that are none", () => {
  afterEach(async () => expect((await server.get("/api/uploaded-files")).body.count).toBe(0));
  const form = (...entries: [string, string, string?][]) => {
    const data = new FormData();
    for (const [field, content, name] of entries) {
      if (name === undefined) data.append(field, content);
      else data.append(field, new Blob([content]), name);
    }
    return server.request("/api/upload", { method: "POST", body: data });
  };
  const EXE = "File type .exe not allowed. Allowed types: .csv, .json, .txt, .py";

  test("a wrong field", async () => {
    for (const field of ["data", "files", "csvfile", "csvFile[]", "__proto__", "file.name", "a".repeat(300)]) {
      expectError(await form([field, "x\n1\n", "a.csv"]), 400, "Unexpected field");
    }
  });

  test("two files", async () => {
    expectError(await form(["csvFile", "x\n", "a.csv"], ["csvFile", "y\n", "b.csv"]), 400, "Too many files");
    expectError(await form(["csvFile", "x\n", "a.csv"], ["file", "y\n", "b.csv"]), 400, "Too many files");
  });

  test("a wrong file after a right one, and the other way round", async () => {
    expectError(await form(["csvFile", "x\n", "a.csv"], ["data", "y\n", "b.exe"]), 400, "Too many files");
    expectError(await form(["csvFile", "y\n", "b.exe"], ["csvFile", "x\n", "a.csv"]), 400, EXE);
  });

  test("no file", async () => {
    expectError(await form(["csvFile", "x\n1\n"]), 400, "No file uploaded");
    expectError(await form(["other", "text"]), 400, "No file uploaded");
    expectError(await uploadRaw([]), 400, "No file uploaded");
    // What a browser sends for a file input that was left empty.
    expectError(await uploadRaw([csv("", "")]), 400, "No file uploaded");
    expectError(await server.post("/api/upload", { csvFile: "x" }), 400, /^No file uploaded. .*"application\/json"/);
    expectError(
      await server.post("/api/upload", "x\n1\n", { "content-type": "text/csv" }),
      400,
      /^No file uploaded. .*"text\/csv"/,
    );
    expectError(await server.request("/api/upload", { method: "POST" }), 400, "No file uploaded");
    expectError(await raw(["POST /api/upload HTTP/1.1", "Content-Type: multipart/form-data"]), 400, "No file uploaded");
  });

  test("a wrong type", async () => {
    expectError(await form(["csvFile", "MZ", "virus.exe"]), 400, EXE);
    for (const [name, extension] of [
      ["a.csv.exe", ".exe"],
      ["a.EXE", ".exe"],
      ["a.html", ".html"],
      ["a.csv.", "."],
      ["a.csv ", ".csv_"],
      ["csv", "(none)"],
      [".csv", "(none)"],
      ["a.csv%00.exe", ".exe"],
      ["a.csv/.exe", "(none)"],
      ["a.c<b>sv", ".c_b_sv"],
    ] as const) {
      expectError(
        await form(["csvFile", "x", name]),
        400,
        `File type ${extension} not allowed. Allowed types: .csv, .json, .txt, .py`,
      );
    }
  });

  test("a table whose description is more than the server reads is stored, and says so", async () => {
    const names = Array.from({ length: 120_000 }, (_, column) => `c${column}`).join(",");
    const { status, body } = await server.upload("wide.csv", `${names}\n`);
    expect({ status, file: body.file.pyodideFilename }).toEqual({ status: 200, file: "wide.csv" });
    expect(body.analysis).toMatchObject({
      success: false,
      columns: null,
      error: "The description of the table is too large: it has more than 100000 values.",
    });
    await server.post("/api/clear-all-files", {});
  });

  test("10 MiB and one byte", async () => {
    const reply = await server.upload("big.csv", Buffer.alloc(10 * MIB + 1, "x"));
    expectError(reply, 400, "File size too large. Maximum size: 10MB");
  });

  test("no boundary, and one that never comes", async () => {
    const body = multipart([csv()]);
    const noBoundary = ["POST /api/upload HTTP/1.1", "Content-Type: multipart/form-data"];
    expectError(await raw(noBoundary, body), 400, "The upload is incomplete or malformed");
    const other = ["POST /api/upload HTTP/1.1", "Content-Type: multipart/form-data; boundary=other"];
    expectError(await raw(other, body), 400, /The upload is incomplete or malformed|No file uploaded/);
    expectError(await raw(UPLOAD_HEAD, "not multipart"), 400, /incomplete or malformed|No file uploaded/);
  });

  test("a body that ends before its last boundary", async () => {
    const whole = multipart([csv("a.csv", "x\n".repeat(1000))]);
    for (const length of [5, 40, 100, 150, 1000, whole.length - BOUNDARY.length - 8, whole.length - 6]) {
      expectError(await raw(UPLOAD_HEAD, whole.subarray(0, length)), 400, "The upload is incomplete or malformed");
    }
  });

  test("too many fields, and fields that are too large", async () => {
    const field = (i: number): Part => ({ disposition: `name="f${i}"`, content: "1" });
    expectError(await uploadRaw([...Array.from({ length: 21 }, (_, i) => field(i)), csv()]), 400, "Too many fields");
    const large = { disposition: 'name="large"', content: "x".repeat(64 * 1024 + 1) };
    expectError(await uploadRaw([large, csv()]), 400, "Field value too long");
    const deep = { disposition: `name="a${"[b]".repeat(10_000)}"`, content: "1" };
    expect((await uploadRaw([deep, csv()])).status).toBe(400);
    expect((await uploadRaw([{ disposition: "filename=a.csv", content: "x" }])).status).toBe(400);
  });

  test("a form's __proto__ is nobody's prototype", async () => {
    await uploadRaw([{ disposition: 'name="__proto__[polluted]"', content: "1" }, csv("a.exe")]);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });
});

describe("uploads that are cut off", () => {
  const head = [...UPLOAD_HEAD, `Content-Length: ${5 * MIB}`];
  const beginning = multipart([csv("cut.csv", Buffer.alloc(MIB, "x"))], "").subarray(0, -2);
  const arriving = async () => {
    const request = await openRawRequest(server.url, head);
    await request.send(beginning);
    await until(async () => (await temporaryFiles()).length === 1);
    return request;
  };

  test("a client that goes away leaves no file", async () => {
    for (let i = 0; i < 5; i++) {
      const request = await arriving();
      request.socket.destroy();
      await until(async () => (await temporaryFiles()).length === 0);
    }
    expect((await server.get("/api/uploaded-files")).body.count).toBe(0);
  });

  test("a client that resets the connection leaves no file", async () => {
    const request = await arriving();
    request.socket.resetAndDestroy();
    await until(async () => (await temporaryFiles()).length === 0);
  });

  test("a client that closes its side leaves no file", async () => {
    const request = await arriving();
    request.socket.end();
    expect(await request.reply()).toMatch(/^($|HTTP\/1\.1 400 )/);
    await until(async () => (await temporaryFiles()).length === 0);
  });
});

describe("a workspace that has no room", () => {
  let small: TestServer;
  beforeAll(async () => {
    small = await startTestServer({ WORKSPACE_MAX_MB: "1", WORKSPACE_MAX_FILES: "3" });
  });
  afterAll(async () => await small.stop(0));
  afterEach(async () => {
    expect(await readdir(small.config.UPLOAD_DIR)).toEqual([]);
    await small.post("/api/clear-all-files", {});
  });

  test("refuses an upload, and keeps nothing of it", async () => {
    expectError(await small.upload("a.txt", Buffer.alloc(2 * MIB)), 413, /^The workspace is full/);
    // A record with its copy, the file, and the latest CSV beside it are three times 600 kB.
    expectError(await small.upload("a.csv", Buffer.alloc(600_000, "x")), 413, /^The workspace is full/);
    expect((await small.get("/api/uploaded-files")).body.count).toBe(0);
    expect((await small.get("/api/pyodide-files")).body.result.count).toBe(0);
    expect((await small.upload("a.txt", Buffer.alloc(400_000))).status).toBe(200);
  });

  test("refuses one file too many", async () => {
    expect((await small.upload("a.csv", "x\n1\n")).status).toBe(200);
    expectError(await small.upload("b.csv", "x\n1\n"), 413, /at most 3 files/);
  });

  test("refuses a file where a folder is", async () => {
    await small.post("/api/execute", { code: 'import os; os.mkdir("a.csv")' });
    expectError(await small.upload("a.csv", "x\n1\n"), 409, "a.csv is a folder");
  });

  test("tells code that nothing it wrote was kept, if it had no room", async () => {
    const { body } = await small.post("/api/execute", { code: 'open("a", "wb").write(b"x" * 2_000_000)' });
    expect(body).toMatchObject({ success: false, errorInfo: { type: "OSError" } });
    expect((await small.get("/api/pyodide-files")).status).toBe(200);
  });
});

describe("headers that lie", () => {
  const ask = (forwarded: string, to: TestServer, id: string) =>
    to.post("/api/execute", { code: "1" }, { "x-forwarded-for": forwarded, "x-request-id": id });
  const addressOf = async (id: string, on: TestServer) =>
    (await readSecurityLog(on.config)).find(({ requestId }) => requestId === id)?.ip;

  test("X-Forwarded-For changes nothing where no proxy is trusted", async () => {
    for (const [i, forged] of ["203.0.113.7", "127.0.0.1, 10.0.0.1", "::1", "unknown", "<b>", ""].entries()) {
      await ask(forged, server, `forged-${i}`);
      expect(await addressOf(`forged-${i}`, server)).toBe("127.0.0.1");
    }
    const { topIPs } = (await server.get("/api/dashboard/stats")).body.stats;
    expect(topIPs).toEqual([{ ip: "127.0.0.1", count: expect.any(Number) }]);
  });

  test("X-Forwarded-For is no way around a rate limit", async () => {
    const limited = await startTestServer({ RATE_LIMIT_MAX_REQUESTS: "3" });
    try {
      const statuses = [];
      for (let i = 0; i < 5; i++) statuses.push((await ask(`203.0.113.${i}`, limited, `id-${i}`)).status);
      expect(statuses).toEqual([200, 200, 200, 429, 429]);
      const refused = (await readSecurityLog(limited.config)).filter(({ event }) => event === "rate_limited");
      // The one that follows is counted with it.
      expect(refused).toMatchObject([
        { requestId: "id-3", ip: "127.0.0.1", principal: "anonymous", details: { path: "/api/execute" } },
      ]);
    } finally {
      await limited.stop(0);
    }
  });

  test.each(["loopback", "127.0.0.1", "1"])("with TRUST_PROXY=%s only the proxy's own entry counts", async (trust) => {
    const proxied = await startTestServer({ TRUST_PROXY: trust });
    try {
      for (const [i, [header, address]] of (
        [
          ["203.0.113.7", "203.0.113.7"],
          ["6.6.6.6, 203.0.113.7", "203.0.113.7"],
          ["127.0.0.1, 6.6.6.6, 203.0.113.7", "203.0.113.7"],
          ["2001:db8::1", "2001:db8::1"],
        ] as const
      ).entries()) {
        await ask(header, proxied, `proxied-${i}`);
        expect(await addressOf(`proxied-${i}`, proxied)).toBe(address);
      }
    } finally {
      await proxied.stop(0);
    }
  });

  test("no header and no name forges or breaks a line of the log", async () => {
    const before = (await readSecurityLog(server.config)).length;
    const nasty = '\u0085\u009b31m"}\\n{"event":"forged"}\u00a0\u00ad';
    const body = '{"code":"1"}';
    const head = ["POST /api/execute HTTP/1.1", "Content-Type: application/json"];
    const latin1 = await openRawRequest(server.url, [...head, `Content-Length: ${body.length}`, "User-Agent: plain"]);
    await latin1.send(body);
    await latin1.reply();
    for (const header of ["User-Agent", "X-Request-Id", "X-Forwarded-For"]) {
      const { status } = await server.post("/api/execute", { code: "1" }, { [header]: nasty });
      expect(status).toBe(200);
    }
    await server.upload('x\u2028\u202e"}\n{"event":"forged"}.csv', "a\n1\n");
    const lines = await readSecurityLog(server.config);
    expect(lines.length - before).toBe(5);
    expect(lines.filter(({ event }) => (event as string) === "forged")).toEqual([]);
    const text = await readFile(path.join(server.config.LOG_DIR, "security.log"), "utf8");
    expect(text).not.toMatch(/[\p{Cf}\p{Zl}\p{Zp}\u007f-\u009f]/u);
    expect(await verifySecurityLog(server.config.LOG_DIR)).toMatchObject({ ok: true });
    await server.post("/api/clear-all-files", {});
  });

  test("a request id of the client's is taken only if it is a plain one", async () => {
    for (const [given, isTaken] of [
      ["abc-1.2_3", true],
      ["x".repeat(64), true],
      ["x".repeat(65), false],
      ["a b", false],
      ['a"b', false],
      ["<b>", false],
    ] as const) {
      const id = (await server.get("/api/status", { "x-request-id": given })).headers.get("x-request-id");
      expect(id === given).toBe(isTaken);
    }
  });
});
