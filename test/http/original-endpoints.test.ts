import { readdir } from "node:fs/promises";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Content } from "../support/client.ts";
import { py } from "../support/engine.ts";
import { type Reply, startTestServer, type TestServer } from "../support/server.ts";

const MIB = 1024 * 1024;
const TIMESTAMP = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(async () => await server.stop(0));
afterEach(async () => expect(await readdir(server.config.UPLOAD_DIR)).toEqual([]));

async function run(code: string) {
  const { body } = await server.post("/api/execute", { code });
  expect(body.error).toBe(null);
  return body.result;
}

function expectError(reply: Reply, status: number, error: string): void {
  expect(reply.body).toMatchObject({ success: false, error, timestamp: TIMESTAMP });
  expect(reply.status).toBe(status);
}

describe("POST /api/upload", () => {
  afterEach(async () => void (await server.post("/api/clear-all-files", {})));

  test("answers with the file and what is in it, and code finds it", async () => {
    const content = "name,age,joined\nAda,36,1843-01-01\nGrace,,1944-06-01\n";
    const { status, body } = await server.upload("people.csv", content);
    expect(status).toBe(200);
    expect(body).toEqual({
      success: true,
      file: {
        originalName: "people.csv",
        size: content.length,
        pyodideFilename: "people.csv",
        keepFile: true,
        tempPath: "uploads/people.csv",
        isText: true,
      },
      analysis: {
        success: true,
        filename: "people.csv",
        shape: [2, 3],
        columns: ["name", "age", "joined"],
        sample: [
          { name: "Ada", age: 36, joined: "1843-01-01" },
          { name: "Grace", age: null, joined: "1944-06-01" },
        ],
        memory_usage: expect.any(Number),
      },
      timestamp: TIMESTAMP,
    });
    expect(await run('[open("people.csv").read(), open("uploaded_file.csv").read()]')).toEqual([content, content]);
  });

  test("the latest CSV is also uploaded_file.csv; a file of another type leaves that alone", async () => {
    await server.upload("first.csv", "a\n1\n");
    await server.upload("second.CSV", "b\n2\n");
    await server.upload("third.txt", "no table");
    expect(await run('open("uploaded_file.csv").read()')).toBe("b\n2\n");
    expect(await run('import os; sorted(os.listdir("."))')).toEqual([
      "first.csv",
      "second.CSV",
      "third.txt",
      "uploaded_file.csv",
    ]);
  });

  test.each([
    ["/api/upload", "csvFile"],
    ["/api/upload", "file"],
    ["/api/upload-csv", "csvFile"],
    ["/api/upload-csv", "file"],
  ])("%s takes the field %s", async (path, field) => {
    const { status, body } = await server.upload("a.csv", "x\n1\n", { path, field });
    expect(status).toBe(200);
    expect(body).toMatchObject({ success: true, analysis: { success: true, shape: [1, 1] } });
  });

  test("a new upload of the same name replaces the file", async () => {
    await server.upload("a.csv", "x\n1\n");
    await server.upload("a.csv", "x\n1\n2\n");
    expect(await run('open("a.csv").read()')).toBe("x\n1\n2\n");
    expect((await server.get("/api/uploaded-files")).body.count).toBe(1);
  });

  test.each([
    ["sales report (final).csv", "sales_report__final_.csv"],
    ["Ünïcode 数据.csv", "_n_code___.csv"],
    ["a&b;c$d.csv", "a_b_c_d.csv"],
    ['quote"d.csv', "quote_d.csv"],
    ["per%20cent.csv", "per_20cent.csv"],
  ])("%s is stored as %s", async (originalName, pyodideFilename) => {
    const { body } = await server.upload(originalName, "x\n1\n");
    expect(body.file).toMatchObject({ originalName, pyodideFilename });
    expect(await run(`import os; os.path.getsize("${pyodideFilename}")`)).toBe(4);
  });

  test("names that become the same keep both files, and tempPath is what is listed and deleted", async () => {
    const [first, second, again] = [
      await server.upload("日本.csv", "a\n1\n"),
      await server.upload("中国.csv", "b\n2\n"),
      await server.upload("日本.csv", "c\n3\n"),
    ].map(({ body }) => body.file);
    expect([first, second, again].map(({ pyodideFilename }) => pyodideFilename)).toEqual([
      "__.csv",
      "__-2.csv",
      "__.csv",
    ]);
    expect(await run('[open("__.csv").read(), open("__-2.csv").read()]')).toEqual(["c\n3\n", "b\n2\n"]);
    for (const { tempPath } of [first, second]) {
      const name = path.basename(tempPath);
      const { files } = (await server.get("/api/uploaded-files")).body;
      expect(files.map(({ filename }: { filename: string }) => filename)).toContain(name);
      expect((await server.delete(`/api/uploaded-files/${name}`)).status).toBe(200);
    }
    expect((await server.get("/api/uploaded-files")).body.count).toBe(0);
  });

  test("JSON is described, text and Python are only stored", async () => {
    const json = await server.upload("rows.json", '[{"a":1,"b":"x"},{"a":2,"c":null}]');
    expect(json.body.analysis).toMatchObject({
      success: true,
      shape: [2, 3],
      columns: ["a", "b", "c"],
      sample: [
        { a: 1, b: "x" },
        { a: 2, c: null },
      ],
    });
    for (const [name, content, reason] of [
      ["list.json", "[1, 2]", /no list of objects/],
      ["broken.json", '{"a": ', /JSONDecodeError/],
      ["deep.json", "[".repeat(200_000), /RecursionError|stack overflowed/],
      ["notes.txt", "hello", /no table/],
      ["module.py", "ANSWER = 42\n", /no table/],
    ] as const) {
      const { status, body } = await server.upload(name, content);
      expect(status).toBe(200);
      expect(body).toMatchObject({ success: true, file: { pyodideFilename: name, size: content.length } });
      expect(body.analysis).toEqual({
        success: false,
        filename: name,
        shape: null,
        columns: null,
        sample: null,
        memory_usage: null,
        error: expect.stringMatching(reason),
      });
    }
    expect(await run("import module; module.ANSWER")).toBe(42);
  });

  test("a module of the caller's that is called like one of Python's changes no analysis", async () => {
    for (const name of ["csv.py", "json.py", "io.py", "os.py", "encodings.py", "pandas.py"]) {
      await server.upload(name, "raise SystemExit('mine')");
    }
    expect((await server.upload("a.csv", "x;y\n1;2\n")).body.analysis).toMatchObject({ success: true, shape: [1, 2] });
    expect((await server.upload("a.json", '[{"x":1}]')).body.analysis).toMatchObject({ success: true, shape: [1, 1] });
  });
});

describe("real CSVs", () => {
  afterAll(async () => void (await server.post("/api/clear-all-files", {})));

  const utf16 = (text: string) => Buffer.from(`\ufeff${text}`, "utf16le");
  const many = Array.from({ length: 200 }, (_, i) => `column ${i}`);
  const cases: [string, Content, object][] = [
    [
      "a byte order mark",
      "\ufeffname,age\nAda,36\n",
      { shape: [1, 2], columns: ["name", "age"], sample: [{ name: "Ada", age: 36 }] },
    ],
    [
      "semicolons, as Excel writes them in Europe",
      "Stadt;Einwohner;Fläche\r\nKöln;1073096;405,01\r\n",
      {
        shape: [1, 3],
        columns: ["Stadt", "Einwohner", "Fläche"],
        sample: [{ Stadt: "Köln", Einwohner: 1073096, Fläche: "405,01" }],
      },
    ],
    ["tabs", "a\tb\n1\tx, y\n", { shape: [1, 2], columns: ["a", "b"], sample: [{ a: 1, b: "x, y" }] }],
    ["bars", "a|b\n1|2\n", { shape: [1, 2], sample: [{ a: 1, b: 2 }] }],
    ["one column", "city\nKöln\n\nBonn\n", { shape: [2, 1], columns: ["city"] }],
    [
      "quoted newlines, commas and quotes",
      'id,text\n1,"line one\nline two, ""quoted"""\n2,"\r\n"\n',
      { shape: [2, 2], sample: [{ id: 1, text: 'line one\nline two, "quoted"' }, { id: 2 }] },
    ],
    [
      "a newline in a quoted header",
      '"first\nname";"last name";age\nAda;Lovelace;36\n',
      { shape: [1, 3], columns: ["first\nname", "last name", "age"] },
    ],
    [
      "a delimiter of another kind in a quoted header",
      '"a;b;c",d\n1,2\n',
      { shape: [1, 2], columns: ["a;b;c", "d"], sample: [{ "a;b;c": 1, d: 2 }] },
    ],
    ["blank lines before the header", "\n\r\n  \na;b\n1;2\n", { shape: [1, 2], columns: ["a", "b"] }],
    ["Latin-1", Buffer.from("naïve,café\n1,é\n", "latin1"), { columns: ["naïve", "café"], sample: [{ café: "é" }] }],
    ["cp1252", Buffer.from("price\n\x80 5 \x96 10\n", "latin1"), { shape: [1, 1], sample: [{ price: "€ 5 – 10" }] }],
    ["Latin-1 that is no cp1252", Buffer.from("a\n\x81\xe9\n", "latin1"), { sample: [{ a: "\x81é" }] }],
    ["UTF-16, little endian", utf16("név\tkor\nÉva\t30\n"), { columns: ["név", "kor"], sample: [{ név: "Éva" }] }],
    ["UTF-16, big endian", utf16("név,kor\nÉva,30\n").swap16(), { columns: ["név", "kor"] }],
    ["headers only", "a,b,c\n", { shape: [0, 3], columns: ["a", "b", "c"], sample: [] }],
    ["no newline at the end", "a,b\n1,2", { shape: [1, 2], sample: [{ a: 1, b: 2 }] }],
    ["line ends of an old Mac", "a,b\r1,2\r3,4\r", { shape: [2, 2], columns: ["a", "b"] }],
    ["200 columns", `${many.join(",")}\n${many.map((_, i) => i).join(",")}\n`, { shape: [1, 200], columns: many }],
    ["rows that are too short", "a,b,c\n1\n1,2\n", { shape: [2, 3], sample: [{ a: 1, b: null, c: null }, { b: 2 }] }],
    ["columns of one name, and of none", "a,a,a.1,\n1,2,3,4\n", { shape: [1, 4] }],
    [
      "what Python, but nobody else, reads as a number",
      "a,b,c,d\n1_000,٣,nan,Infinity\n",
      { sample: [{ a: "1_000", b: "٣" }] },
    ],
    ["a field of 300 kB", `a,b\n"${"x".repeat(300_000)}",2\n`, { shape: [1, 2] }],
    [
      "names that mean something to JavaScript",
      "__proto__,constructor\n1,2\n",
      { columns: ["__proto__", "constructor"] },
    ],
  ];

  test.each(cases)("%s", async (_name, content, analysis) => {
    const { status, body } = await server.upload("table.csv", content);
    expect(status).toBe(200);
    expect(body.analysis).toMatchObject({ success: true, filename: "table.csv", ...analysis });
    expect(new Set(body.analysis.columns).size).toBe(body.analysis.columns.length);
    expect(body.file.size).toBe(Buffer.byteLength(content));
  });

  test.each<[string, Content, RegExp]>([
    ["empty", "", /empty/],
    ["nothing but a byte order mark", "\ufeff", /empty/],
    ["nothing but newlines", "\n\n\n", /empty/],
    ["more fields than the header has", "a,b\n1,2\n1,2,3\n", /line 3.*3 fields.*2/],
    ["a quote that does not end", 'a,b\n"1,2\n', /end/],
    ["binary", Buffer.from([0x89, 0x50, 0x4e, 0x47, 0, 0, 0, 13]), /binary/],
    ["half a character of UTF-16", Buffer.concat([utf16("a,b"), Buffer.from([0x41])]), /UnicodeDecodeError/],
  ])("%s is uploaded all the same, and says why it is no table", async (_name, content, reason) => {
    const { status, body } = await server.upload("odd.csv", content);
    expect(status).toBe(200);
    expect(body).toMatchObject({
      success: true,
      file: { size: Buffer.byteLength(content), pyodideFilename: "odd.csv" },
    });
    expect(body.analysis).toEqual({
      success: false,
      filename: "odd.csv",
      shape: null,
      columns: null,
      sample: null,
      memory_usage: null,
      error: expect.stringMatching(reason),
    });
    expect(await run('import os; os.path.getsize("odd.csv")')).toBe(Buffer.byteLength(content));
  });

  test("10 MiB, to the byte", async () => {
    const header = "id,name,value\n";
    const row = "1234567,some name of a person,2.71\n";
    const rows = Math.floor((10 * MIB - header.length) / row.length);
    const text = header + row.repeat(rows);
    const content = text + "\n".repeat(10 * MIB - text.length);
    const { status, body } = await server.upload("big.csv", content);
    expect(status).toBe(200);
    expect(body).toMatchObject({
      success: true,
      file: { size: 10 * MIB },
      analysis: { success: true, shape: [rows, 3], sample: expect.any(Array) },
    });
    expect(body.analysis.sample[0]).toEqual({ id: 1234567, name: "some name of a person", value: 2.71 });
  });
});

describe("files", () => {
  beforeEach(async () => {
    await server.post("/api/clear-all-files", {});
    await server.upload("one.csv", "a\n1\n");
    await server.upload("two.txt", "hello");
    await run(
      'import os; os.mkdir("folder"); open("folder/inside", "w").write("x"); open("made.bin", "wb").write(b"123")',
    );
  });

  test("GET /api/uploaded-files, newest first", async () => {
    const { status, body } = await server.get("/api/uploaded-files");
    expect(status).toBe(200);
    expect(body).toEqual({
      success: true,
      files: [
        { filename: "two.txt", size: 5, uploaded: TIMESTAMP, modified: TIMESTAMP },
        { filename: "one.csv", size: 4, uploaded: TIMESTAMP, modified: TIMESTAMP },
      ],
      count: 2,
      uploadDir: expect.any(String),
    });
    expect(body.uploadDir).not.toContain("/");
  });

  test("DELETE /api/uploaded-files/:filename", async () => {
    const { status, body } = await server.delete("/api/uploaded-files/one.csv");
    expect(status).toBe(200);
    expect(body).toEqual({ success: true, message: "File one.csv deleted successfully", timestamp: TIMESTAMP });
    expectError(await server.delete("/api/uploaded-files/one.csv"), 404, "File not found");
    expectError(await server.delete("/api/uploaded-files/made.bin"), 404, "File not found");
    expect((await server.get("/api/uploaded-files")).body.count).toBe(1);
    // What code may have changed since is not what was uploaded.
    expect(await run('open("one.csv").read()')).toBe("a\n1\n");
  });

  test("GET /api/pyodide-files", async () => {
    const { status, body } = await server.get("/api/pyodide-files");
    expect(status).toBe(200);
    expect(body).toEqual({
      success: true,
      result: {
        success: true,
        files: [
          { name: "made.bin", size: 3, modified: TIMESTAMP },
          { name: "one.csv", size: 4, modified: TIMESTAMP },
          { name: "two.txt", size: 5, modified: TIMESTAMP },
          { name: "uploaded_file.csv", size: 4, modified: TIMESTAMP },
        ],
        count: 4,
      },
    });
  });

  test("GET /api/pyodide-files/:filename is the file's bytes, and never a page", async () => {
    await run('open("x.html", "wb").write(b"<script>\\0\\xff")');
    const response = await fetch(`${server.url}/api/pyodide-files/x.html`);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("application/octet-stream");
    expect(response.headers.get("content-disposition")).toBe("attachment; filename=x.html");
    expect(Buffer.from(await response.arrayBuffer())).toEqual(Buffer.from("<script>\0\xff", "latin1"));
    expectError(await server.get("/api/pyodide-files/none"), 404, "File none not found");
  });

  test("DELETE /api/pyodide-files/:filename", async () => {
    const { status, body } = await server.delete("/api/pyodide-files/one.csv");
    expect(status).toBe(200);
    expect(body).toEqual({ success: true, message: "File one.csv deleted successfully", timestamp: TIMESTAMP });
    expectError(await server.delete("/api/pyodide-files/one.csv"), 404, "File one.csv not found");
    expectError(await server.delete("/api/pyodide-files/folder"), 404, "File folder not found");
    expect(await run('import os; os.path.exists("one.csv")')).toBe(false);
    expect((await server.get("/api/uploaded-files")).body.count).toBe(2);
  });

  test("GET /api/file-info/:filename", async () => {
    const info = async (name: string) => {
      const { status, body } = await server.get(`/api/file-info/${name}`);
      expect(status).toBe(200);
      return body;
    };
    expect(await info("one.csv")).toEqual({
      success: true,
      filename: "one.csv",
      uploadedFile: { exists: true, size: 4, uploaded: TIMESTAMP, modified: TIMESTAMP },
      pyodideFile: { exists: true, size: 4, modified: TIMESTAMP },
    });
    expect(await info("made.bin")).toMatchObject({
      uploadedFile: { exists: false },
      pyodideFile: { exists: true, size: 3 },
    });
    for (const name of ["none", "folder", "inside"]) {
      expect(await info(name)).toEqual({
        success: true,
        filename: name,
        uploadedFile: { exists: false },
        pyodideFile: { exists: false },
      });
    }
    await run('open("one.csv", "a").write("2\\n")');
    expect(await info("one.csv")).toMatchObject({ uploadedFile: { size: 4 }, pyodideFile: { size: 6 } });
  });

  test("names that a URL has to encode", async () => {
    const names = ["a b.txt", "ü.txt", "100%.txt", "a+b.txt", "#?&.txt", "new\nline"];
    await run(`for name in ${JSON.stringify(names)}: open(name, "w").write(name)`);
    for (const name of names) {
      const encoded = encodeURIComponent(name);
      expect((await server.get(`/api/file-info/${encoded}`)).body).toMatchObject({
        filename: name,
        pyodideFile: { exists: true },
      });
      expect((await server.get(`/api/pyodide-files/${encoded}`)).body).toBe(name);
      const { body } = await server.delete(`/api/pyodide-files/${encoded}`);
      expect(body.message).toBe(`File ${name} deleted successfully`);
    }
  });

  test("POST /api/extract-plots lists the plots, of which each can be had", async () => {
    expect((await server.post("/api/extract-plots", {})).body).toEqual({
      success: true,
      extracted_files: [],
      count: 0,
      timestamp: TIMESTAMP,
    });
    await run(py`
      import os
      for path in ("matplotlib/a.png", "seaborn/b.svg", "other.png"):
          open(f"/plots/{path}", "wb").write(b"\x89PNG" + path.encode())
    `);
    const { body } = await server.post("/api/extract-plots", {});
    expect(body).toEqual({
      success: true,
      extracted_files: ["/plots/matplotlib/a.png", "/plots/seaborn/b.svg"],
      count: 2,
      timestamp: TIMESTAMP,
    });
    const response = await fetch(`${server.url}/api${body.extracted_files[0]}`);
    expect(response.status).toBe(200);
    expect(Buffer.from(await response.arrayBuffer()).toString("latin1")).toBe("\x89PNGmatplotlib/a.png");
    expectError(await server.get("/api/plots/matplotlib/none.png"), 404, "File none.png not found");
  });

  test("POST /api/clear-all-files", async () => {
    const { status, body } = await server.post("/api/clear-all-files", {});
    expect(status).toBe(200);
    expect(body).toEqual({
      success: true,
      message: "All files cleared successfully",
      cleared: { uploaded_files: 2, pyodide_files: 5 },
      timestamp: TIMESTAMP,
    });
    expect((await server.get("/api/uploaded-files")).body.files).toEqual([]);
    expect(await run('import os; [os.listdir("."), os.listdir("/tmp"), sorted(os.listdir("/plots"))]')).toEqual([
      [],
      [],
      ["matplotlib", "seaborn"],
    ]);
  });
});

describe("packages and state", () => {
  test("GET /api/packages", async () => {
    const { status, body } = await server.get("/api/packages");
    expect(status).toBe(200);
    expect(body).toMatchObject({ success: true, error: null, stdout: "", stderr: "", timestamp: TIMESTAMP });
    expect(body.result).toEqual({
      python_version: expect.stringMatching(/^3\.\d+/),
      installed_packages: expect.any(Array),
      loaded_modules: expect.arrayContaining(["sys", "json", "asyncio"]),
      total_packages: body.result.installed_packages.length,
    });
  });

  test("POST /api/reset", async () => {
    const { status, body } = await server.post("/api/reset", {});
    expect(status).toBe(200);
    expect(body).toEqual({ success: true, message: "Pyodide environment reset successfully", timestamp: TIMESTAMP });
  });

  test("POST /api/reset without a body", async () => {
    const { status, body } = await server.request("/api/reset", { method: "POST" });
    expect({ status, success: body.success }).toEqual({ status: 200, success: true });
  });

  test("a package that cannot be had is 200 with the reason", async () => {
    const { status, body } = await server.post("/api/install-package", { package: "no-such-package" });
    expect(status).toBe(200);
    expect(body).toMatchObject({
      success: false,
      error: expect.stringContaining("no-such-package"),
      timestamp: TIMESTAMP,
    });
  });

  const NO_NAME = 'No package name provided. Please include "package" in the request body.';
  const NOT_TEXT = "Package name must be a string.";
  const FORMAT = "Invalid package name format. Use only letters, numbers, dots, hyphens, and underscores.";
  const TOO_LONG = "Package name too long. Maximum length: 100 characters.";
  test.each<[string, unknown, string]>([
    ["nothing", {}, NO_NAME],
    ["an array for a body", [], NO_NAME],
    ["null", { package: null }, NO_NAME],
    ["an empty name", { package: "" }, NO_NAME],
    ["a number", { package: 1 }, NOT_TEXT],
    ["a list", { package: ["numpy"] }, NOT_TEXT],
    ["an object", { package: { name: "numpy" } }, NOT_TEXT],
    ["true", { package: true }, NOT_TEXT],
    ...[
      " ",
      "a b",
      "numpy; rm -rf /",
      "../numpy",
      "numpy/../..",
      "git+https://example.org/x",
      "x @ https://example.org/x.whl",
      "https://example.org/x-1-py3-none-any.whl",
      "numpy>=1",
      "numpy==",
      "numpy==1==2",
      "numpy==1;x",
      "numpy[extra]",
      "nümpy",
      "numpy\n",
      "numpy\0",
      "-r requirements.txt",
      "$(id)",
      "`id`",
    ].map((name): [string, unknown, string] => [JSON.stringify(name), { package: name }, FORMAT]),
    ["101 characters", { package: "x".repeat(101) }, TOO_LONG],
    ["101 characters with its version", { package: `${"x".repeat(95)}==1.0.0` }, TOO_LONG],
  ])("refuses %s", async (_name, body, error) => {
    expectError(await server.post("/api/install-package", body), 400, error);
  });

  test.each([
    "os",
    "OS",
    "subprocess",
    "Subprocess",
    "socket",
    "urllib3",
    "URLLIB3",
    "urllib3==2.0",
    "requests-oauthlib",
    "Requests_OAuthlib",
    "requests.oauthlib",
    "requests--oauthlib",
  ])("refuses %s for security reasons", async (name) => {
    const reply = await server.post("/api/install-package", { package: name });
    expectError(reply, 403, `Package "${name}" is not allowed for security reasons.`);
  });

  test.each(["-", ".", "_x", "x-", "x==not.a.version!", "x==1.*"])(
    "%s is no requirement: 200 and why",
    async (name) => {
      const { status, body } = await server.post("/api/install-package", { package: name });
      expect([200, 400]).toContain(status);
      expect(body).toMatchObject({ success: false, error: expect.any(String) });
    },
  );
});

describe("statistics", () => {
  test("GET /api/dashboard/stats, POST /api/dashboard/stats/clear and GET /api/stats, and their shapes", async () => {
    expect((await server.post("/api/dashboard/stats/clear", {})).body).toEqual({
      success: true,
      message: "Statistics cleared successfully",
      timestamp: TIMESTAMP,
    });
    const empty = await server.get("/api/dashboard/stats");
    expect(empty.status).toBe(200);
    expect(empty.body).toMatchObject({ success: true, timestamp: TIMESTAMP });
    expect(empty.body.stats.overview).toMatchObject({ totalExecutions: 0, successRate: 0, averageExecutionTime: 0 });
    expect(empty.body.stats.recent).toEqual({
      lastHourExecutions: 0,
      recentSuccessRate: 0,
      packagesInstalled: 0,
      filesUploaded: 0,
    });
    await server.post("/api/execute", { code: "1" }, { "user-agent": "original/1.0" });
    await server.post("/api/execute", { code: "2" }, { "user-agent": "original/1.0" });
    await server.post("/api/execute", { code: "1 / 0" }, { "user-agent": "other" });
    const { stats } = (await server.get("/api/dashboard/stats")).body;
    expect(stats).toMatchObject({
      overview: {
        totalExecutions: 3,
        successRate: "66.7",
        averageExecutionTime: expect.any(Number),
        uptimeSeconds: expect.any(Number),
        uptimeHuman: expect.stringMatching(/^(\d+m )?\d+s$/),
      },
      recent: { lastHourExecutions: 3, recentSuccessRate: "66.7", packagesInstalled: 0, filesUploaded: 0 },
      topIPs: [{ ip: "127.0.0.1", count: 3 }],
      topErrors: [{ error: "ZeroDivisionError", count: 1 }],
      userAgents: [
        { agent: "original/1.0", count: 2 },
        { agent: "other", count: 1 },
      ],
    });
    expect(stats.hourlyTrend).toHaveLength(24);
    expect(stats.hourlyTrend.reduce((sum: number, count: number) => sum + count, 0)).toBe(3);
    const { status, body } = await server.get("/api/stats");
    expect(status).toBe(200);
    expect(body).toEqual({
      uptime: expect.any(Number),
      memory: expect.objectContaining({ rss: expect.any(Number), heapUsed: expect.any(Number) }),
      pyodide: expect.objectContaining({ isReady: true }),
      pyodideReady: true,
      timestamp: TIMESTAMP,
      executionStats: expect.objectContaining({
        totalExecutions: 3,
        successRate: 2 / 3,
        averageExecutionTime: expect.any(Number),
        errorCategories: { ZeroDivisionError: 1 },
        hourlyTrend: stats.hourlyTrend,
        topIPs: stats.topIPs,
        topErrors: stats.topErrors,
        userAgents: stats.userAgents,
        recent: stats.recent,
      }),
    });
    expect(body.executionStats.overview).toMatchObject({ totalExecutions: 3, successRate: "66.7" });
  });

  test("GET /metrics is Prometheus'", async () => {
    const { status, body, headers } = await server.get("/metrics");
    expect(status).toBe(200);
    expect(headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(body).toMatch(/^# TYPE \w+ counter$/m);
  });
});
