import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createClient, type Reply, type TestClient } from "../support/client.ts";
import { TEST_WHEELS } from "../support/config.ts";
import { leaveWhileItRuns } from "../support/leave-while-it-runs.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const ALICE = "a-key-of-librechat-tests";
const BOB = "b-key-of-librechat-tests";
/** As LibreChat checks ids before it asks for a file. */
const ID = /^[A-Za-z0-9_-]{21}$/;
let server: TestServer;
let alice: TestClient;
let bob: TestClient;

beforeAll(async () => {
  server = await startTestServer({
    API_KEYS: `alice:${ALICE},bob:${BOB}`,
    POOL_SIZE: "2",
    MAX_FILE_SIZE: "100000",
    SESSION_MAX_MB: "1",
  });
  alice = createClient(`${server.url}/librechat/v1`, { "X-API-Key": ALICE, "User-Agent": "LibreChat/1.0" });
  bob = createClient(`${server.url}/librechat/v1`, { "X-API-Key": BOB });
});
afterAll(async () => await server.stop(0));

const exec = async (code: string, more: Record<string, unknown> = {}): Promise<Reply> =>
  await alice.post("/exec", { lang: "py", code, ...more });
const upload = async (
  files: readonly (readonly [name: string, content: string | Uint8Array])[],
  {
    path = "/upload",
    fields = {},
    client = alice,
  }: { path?: string; fields?: Record<string, string>; client?: TestClient } = {},
): Promise<Reply> => {
  const form = new FormData();
  for (const [name, value] of Object.entries({ kind: "user", id: "u", ...fields })) form.append(name, value);
  for (const [name, content] of files) form.append("file", new Blob([content as Uint8Array<ArrayBuffer>]), name);
  return await client.request(path, { method: "POST", body: form });
};
const uploadOne = async (name: string, content: string, fields?: Record<string, string>) => {
  const { body } = await upload([[name, content]], fields && { fields });
  return { id: body.files[0].fileId as string, storage_session_id: body.storage_session_id as string, name };
};

test("code runs, and its reply is that of LibreChat's interpreter", async () => {
  const { status, body } = await exec("import sys\nprint('hi', sys.argv[1:])", {
    args: ["a"],
    user_id: "u",
    entity_id: "e",
  });
  expect(status).toBe(200);
  expect(body).toMatchObject({ stdout: "hi ['a']\n", stderr: "", files: [], code: 0, signal: null });
  expect(body.session_id).toMatch(ID);
});

test.each([{ toString: 1 }, [{ toString: 1 }], "constructor"])("%j is no language", async (lang) => {
  expect((await exec("1", { lang })).status).toBe(400);
  const body = { code: "1", language: lang, tools: [{ name: "f" }] };
  expect((await alice.post("/exec/programmatic", body)).status).toBe(400);
});

test.each(["__proto__", "constructor", "toString", "valueOf", "x", "summary&detail=full"])(
  "files have no detail %s",
  async (detail) => {
    const { storage_session_id: session } = await uploadOne("a.txt", "a");
    const plain = await alice.get(`/files/${session}`);
    expect(await alice.get(`/files/${session}?detail=${detail}`)).toMatchObject({ status: 200, body: plain.body });
  },
);

test("what a form says of its files may be of any shape", async () => {
  expect(await upload([["a.txt", "a"]], { fields: { "read_only[toString]": "1" } })).toMatchObject({ status: 200 });
});

test("a time limit is the request's, in ms", async () => {
  expect((await exec("while True: pass", { timeout: 300 })).body).toMatchObject({
    message: "Time limit exceeded",
    status: "TO",
  });
  for (const timeout of [0, -1, "1000"]) expect((await exec("1", { timeout })).status).toBe(400);
  // Longer than any may take: the longest.
  expect((await exec("print(1)", { timeout: 1e9 })).body.stdout).toBe("1\n");
});

test("output beyond the bound is said to be cut", async () => {
  const { body } = await exec("print('x' * 2_000_000)");
  expect(body.stderr).toMatch(/^\[Output was cut: .*\]\n$/);
});

test("an uploaded file is in /mnt/data, and what is new or changed comes back with ids", async () => {
  const { status, body } = await upload([["data.csv", "a,b\n1,2\n"]]);
  expect({ status, body }).toEqual({
    status: 200,
    body: {
      message: "success",
      session_id: expect.stringMatching(ID),
      storage_session_id: body.session_id,
      files: [{ fileId: expect.stringMatching(ID), filename: "data.csv" }],
    },
  });
  const input = { id: body.files[0].fileId, storage_session_id: body.storage_session_id, name: "data.csv" };
  const kept = await uploadOne("kept.txt", "kept");
  const code = [
    "text = open('/mnt/data/data.csv').read()",
    "print(text, open('kept.txt').read())",
    "open('/mnt/data/data.csv', 'a').write('3,4\\n')",
    "import os; os.makedirs('out', exist_ok=True)",
    "open('out/new.txt', 'w').write('new')",
    "open('/tmp/scratch', 'w').write('x')",
  ].join("\n");
  const run = await exec(code, { files: [input, kept] });
  expect(run.body).toMatchObject({ stdout: "a,b\n1,2\n kept\n", stderr: "" });
  const byName = new Map(run.body.files.map((file: { name: string }) => [file.name, file]));
  expect([...byName.keys()].sort()).toEqual(["data.csv", "kept.txt", "out/new.txt"]);
  expect(byName.get("data.csv")).toMatchObject({
    id: expect.stringMatching(ID),
    storage_session_id: run.body.session_id,
    modified_from: { id: input.id, storage_session_id: input.storage_session_id },
  });
  expect(byName.get("kept.txt")).toMatchObject({ ...kept, inherited: true });
  const made = byName.get("out/new.txt") as { id: string };
  const download = await alice.get(`/download/${run.body.session_id}/${made.id}`);
  expect(download).toMatchObject({ status: 200, body: "new" });
  expect(download.headers.get("content-disposition")).toContain("new.txt");
  // The next run gets what this one has left, by the older name of the member too.
  const next = await exec("print(open('data.csv').read(), open('out/new.txt').read())", {
    files: run.body.files.map(({ id, name, storage_session_id }: Record<string, string>) => ({
      id,
      name,
      session_id: storage_session_id,
    })),
  });
  expect(next.body.stdout).toBe("a,b\n1,2\n3,4\n new\n");
});

test("a name of a folder's is kept, and what is read-only comes back as it was", async () => {
  const skill = await uploadOne("pptx/edit.md", "original", { read_only: "true" });
  const { body } = await exec("open('pptx/edit.md','w').write('changed')\nopen('x.txt','w').write('x')", {
    files: [skill],
  });
  expect(body.files).toMatchObject([{ name: "x.txt" }, { name: "pptx/edit.md", id: skill.id, inherited: true }]);
  expect((await alice.get(`/download/${skill.storage_session_id}/${skill.id}`)).body).toBe("original");
});

test("files of a failed run are not kept", async () => {
  const { body } = await exec("open('a.txt','w').write('a')\n1/0");
  expect(body).toMatchObject({ code: 1, files: [], stderr: expect.stringContaining("ZeroDivisionError") });
});

test("files of one upload are listed, described and deleted", async () => {
  const { body } = await upload([
    ["a.txt", "aa"],
    ["b.bin", new Uint8Array([0, 255])],
    ["a.txt", "later"],
  ]);
  const sid = body.storage_session_id;
  const [a, b] = body.files.map(({ fileId }: { fileId: string }) => fileId);
  const { body: summary } = await alice.get(`/files/${sid}?detail=summary`);
  expect(summary).toHaveLength(2);
  const described = summary.find(({ name }: { name: string }) => name.startsWith(`${sid}/${a}`));
  expect(described).toMatchObject({ size: 5, name: `${sid}/${a}.txt` });
  expect(Math.abs(Date.parse(described.lastModified) - Date.now())).toBeLessThan(60_000);
  expect((await alice.get(`/files/${sid}`)).body).toContain(`${sid}/${b}.bin`);
  expect((await alice.get(`/files/${sid}?detail=full`)).body[0].metadata).toMatchObject({
    "original-filename": "a.txt",
  });
  expect((await alice.get(`/files/${sid}?detail=normalized`)).body[0]).toMatchObject({
    id: a,
    name: "a.txt",
    storage_session_id: sid,
  });
  expect((await alice.get(`/sessions/${sid}/objects/${b}`)).body).toMatchObject({
    originalFilename: "b.bin",
    size: 2,
    readOnly: false,
  });
  expect((await alice.delete(`/files/${sid}/${b}`)).body).toEqual({
    message: "File deleted successfully",
    session_id: sid,
    fileId: b,
  });
  expect(await alice.get(`/download/${sid}/${b}`)).toMatchObject({ status: 404, body: { error: "File not found" } });
  expect((await alice.get(`/download/${sid}/${a}`)).body).toBe("later");
});

test("a batch takes what it can", async () => {
  const all = await upload(
    [
      ["a.txt", "a"],
      ["b.txt", "b"],
    ],
    { path: "/upload/batch" },
  );
  expect(all).toMatchObject({ status: 200, body: { message: "success", succeeded: 2, failed: 0 } });
  expect(all.body.files[1]).toEqual({ status: "success", fileId: expect.stringMatching(ID), filename: "b.txt" });
  const some = await upload(
    [
      ["a.txt", "a"],
      ["../b.txt", "b"],
      ["big", "x".repeat(100_001)],
    ],
    { path: "/upload/batch" },
  );
  expect(some).toMatchObject({ status: 200, body: { message: "partial_success", succeeded: 1, failed: 2 } });
  expect(some.body.files.slice(1)).toEqual([
    { status: "error", filename: "../b.txt", error: "Invalid filename" },
    { status: "error", filename: "big", error: "File size limit exceeded" },
  ]);
  const none = await upload([["../b.txt", "b"]], { path: "/upload/batch" });
  expect(none).toMatchObject({ status: 400, body: { message: "error", succeeded: 0, failed: 1 } });
  expect(await upload([], { path: "/upload/batch" })).toMatchObject({
    status: 400,
    body: { error: "No files provided" },
  });
});

test("uploads that cannot be taken are refused whole", async () => {
  expect(
    await upload([
      ["a", "a"],
      ["big", "x".repeat(100_001)],
    ]),
  ).toMatchObject({ status: 413, body: { error: "File size limit exceeded" } });
  expect(await upload([["a/../../b", "x"]])).toMatchObject({ status: 400, body: { error: "Invalid filename" } });
  const many = Array.from({ length: 12 }, (_, i) => [`${i}`, "x".repeat(99_000)] as const);
  expect(await upload(many)).toMatchObject({ status: 413, body: { error: expect.any(String) } });
  expect(await alice.post("/upload", {})).toMatchObject({
    status: 400,
    body: { error: "Invalid content type. Must be multipart/form-data." },
  });
  const headers = { "content-type": "multipart/form-data; boundary=x" };
  const cut = await alice.request("/upload", {
    method: "POST",
    headers,
    body: '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nab',
  });
  expect(cut).toMatchObject({ status: 400, body: { error: "The upload is incomplete or malformed" } });
  expect((await alice.post("/exec", { lang: "py", code: "print(1)" })).body.stdout).toBe("1\n");
});

test("another principal's files are not there", async () => {
  const { id, storage_session_id: sid, name } = await uploadOne("secret.txt", "secret");
  expect(await bob.get(`/files/${sid}`)).toMatchObject({ status: 404, body: { error: expect.any(String) } });
  for (const reply of [
    await bob.get(`/download/${sid}/${id}`),
    await bob.delete(`/files/${sid}/${id}`),
    await bob.get(`/sessions/${sid}/objects/${id}`),
    await bob.post("/exec", { lang: "py", code: "print(1)", files: [{ id, storage_session_id: sid, name }] }),
  ])
    expect(reply).toMatchObject({ status: 404, body: { error: "File not found" } });
  expect((await alice.get(`/download/${sid}/${id}`)).body).toBe("secret");
  // A session of another kind is none, though it is the principal's own.
  const own = createClient(server.url, { "X-API-Key": ALICE });
  const { body } = await own.post("/api/sessions", { id: "x".repeat(21) });
  expect(body.session.id).toBe("x".repeat(21));
  expect((await alice.get(`/files/${"x".repeat(21)}`)).status).toBe(404);
});

test("files that are unknown, or have ended, are not there", async () => {
  const { id, storage_session_id: sid, name } = await uploadOne("ended.txt", "ended");
  const other = await uploadOne("other.txt", "other");
  const own = createClient(server.url, { "X-API-Key": ALICE });
  expect((await own.delete(`/api/sessions/${sid}`)).status).toBe(200);
  for (const [session, file] of [
    [sid, id],
    ["unknown", id],
    [other.storage_session_id, id],
    [other.storage_session_id, "unknown"],
    ["..%2Fx", "..%2Fx"],
  ] as const)
    for (const reply of [
      await alice.get(`/download/${session}/${file}`),
      await alice.get(`/sessions/${session}/objects/${file}`),
      await alice.delete(`/files/${session}/${file}`),
      await exec("print(1)", { files: [{ id: file, storage_session_id: session, name }] }),
    ])
      expect([session, file, reply]).toMatchObject([session, file, { status: 404, body: { error: "File not found" } }]);
  expect((await alice.get(`/files/${sid}`)).status).toBe(404);
});

test("files end a day after they were written", async () => {
  const { storage_session_id: sid } = await uploadOne("a.txt", "a");
  const { body } = await createClient(server.url, { "X-API-Key": ALICE }).get(`/api/sessions/${sid}`);
  expect(Date.parse(body.session.expiresAt) - Date.parse(body.session.createdAt)).toBeGreaterThanOrEqual(
    24 * 3600 * 1000,
  );
  expect(Date.parse(body.session.expiresAt) - Date.parse(body.session.createdAt)).toBeLessThan(25 * 3600 * 1000);
});

test.each([
  [{ lang: "js" }, "Unsupported language: js. This server runs py."],
  [{ lang: "bash" }, "Unsupported language: bash. This server runs py."],
  [{ lang: undefined }, "Unsupported language: undefined. This server runs py."],
  [{ code: undefined }, "Missing required field: code"],
  [{ code: 5 }, "Missing required field: code"],
  [{ args: "a" }, "args must be an array of strings"],
  [{ files: {} }, "files must be an array"],
  [{ files: [1] }, "files[0] must be an object"],
  [{ files: [{ id: "a", name: "b" }] }, "files[0].storage_session_id must be a non-empty string"],
  [{ files: [{ id: "a", storage_session_id: "s", name: "" }] }, "files[0].name must be a non-empty string"],
])("/exec refuses %j", async (wrong, error) => {
  expect(await exec("print(1)", wrong)).toMatchObject({ status: 400, body: { error } });
});

test("a file that is to be outside of /mnt/data is refused", async () => {
  const file = await uploadOne("a.txt", "a");
  for (const name of ["../../tmp/x", "/tmp/x", "/etc/x", "a\0b"])
    expect(await exec("print(1)", { files: [{ ...file, name }] })).toMatchObject({
      status: 400,
      body: { error: expect.any(String) },
    });
  expect(
    (await exec("print(open('/mnt/data/b').read())", { files: [{ ...file, name: "/mnt/data/b" }] })).body.stdout,
  ).toBe("a\n");
});

describe("programs that call tools", () => {
  const TOOLS = [
    {
      name: "get-weather",
      description: "Weather",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
    { name: "import", parameters: { type: "object", properties: {} } },
  ];
  const programmatic = async (body: Record<string, unknown>): Promise<Reply> =>
    await alice.post("/exec/programmatic", body);

  test("calls go out as they come, results come in, and files are kept", async () => {
    const code = [
      "import asyncio, json",
      "print('begin')",
      "sf, ny = await asyncio.gather(get_weather(city='SF'), get_weather(city='NY'))",
      "print(sf['t'] + ny['t'])",
      "open('/mnt/data/r.json', 'w').write(json.dumps([sf, ny]))",
      "print(await import_tool())",
    ].join("\n");
    const first = await programmatic({ code, tools: TOOLS, timeout: 10_000 });
    expect(first).toMatchObject({ status: 200, body: { status: "tool_call_required", partial_stdout: "begin\n" } });
    expect(first.body.session_id).toMatch(ID);
    expect(first.body.tool_calls).toMatchObject([
      { name: "get-weather", input: { city: "SF" } },
      { name: "get-weather", input: { city: "NY" } },
    ]);
    const results = first.body.tool_calls.map(({ id }: { id: string }, i: number) => ({
      call_id: id,
      result: { t: i + 10 },
      is_error: false,
    }));
    const second = await programmatic({ continuation_token: first.body.continuation_token, tool_results: results });
    expect(second.body).toMatchObject({ status: "tool_call_required", tool_calls: [{ name: "import", input: {} }] });
    const third = await programmatic({
      continuation_token: second.body.continuation_token,
      tool_results: [{ call_id: second.body.tool_calls[0].id, result: "done", is_error: false }],
    });
    expect(third.body).toMatchObject({
      status: "completed",
      stdout: "begin\n21\ndone\n",
      stderr: "",
      session_id: first.body.session_id,
    });
    const [file] = third.body.files;
    expect(await alice.get(`/download/${file.storage_session_id}/${file.id}`)).toMatchObject({ status: 200 });
  });

  test("a file is read when code opens it: until then nothing holds it", async () => {
    const [opened, gone] = [await uploadOne("opened.txt", "opened"), await uploadOne("gone.txt", "gone")];
    const code = [
      "await import_tool()",
      "print(open('opened.txt').read())",
      "try: open('gone.txt').read()",
      "except OSError as error: print(type(error).__name__)",
    ].join("\n");
    const { body } = await programmatic({ code, tools: TOOLS, files: [opened, gone] });
    expect(await alice.request(`/files/${gone.storage_session_id}/${gone.id}`, { method: "DELETE" })).toMatchObject({
      status: 200,
    });
    const last = await programmatic({
      continuation_token: body.continuation_token,
      tool_results: [{ call_id: body.tool_calls[0].id, result: null, is_error: false }],
    });
    expect(last.body).toMatchObject({ status: "completed", stdout: "opened\nOSError\n" });
  });

  test("twenty round trips are made", async () => {
    let { body } = await programmatic({
      code: "s = 0\nfor i in range(20):\n    s += await get_weather(city=str(i))\nprint(s)",
      tools: TOOLS,
    });
    let trips = 0;
    while (body.status === "tool_call_required") {
      trips++;
      const [{ id, input }] = body.tool_calls;
      const tool_results = [{ call_id: id, result: Number(input.city), is_error: false }];
      ({ body } = await programmatic({ continuation_token: body.continuation_token, tool_results }));
    }
    expect({ trips, status: body.status, stdout: body.stdout }).toEqual({
      trips: 20,
      status: "completed",
      stdout: "190\n",
    });
  });

  test("a tool's error is an exception, and a program's is an error that its client knows", async () => {
    const first = await programmatic({
      code: "try:\n    await get_weather(city='x')\nexcept Exception as e:\n    print('caught', e)\nimport sys; sys.exit(3)",
      tools: TOOLS,
    });
    const last = await programmatic({
      continuation_token: first.body.continuation_token,
      tool_results: [
        { call_id: first.body.tool_calls[0].id, result: null, is_error: true, error_message: "no such city" },
      ],
    });
    expect(last.body).toMatchObject({
      status: "error",
      error: "Sandbox exited with code 3",
      stdout: "caught no such city\n",
    });
    const late = await programmatic({ code: "while True: pass", tools: TOOLS, timeout: 200 });
    expect(late.body).toMatchObject({ status: "error", error: "Time limit exceeded" });
  });

  test("a continuation is its principal's own, and gone once it is over", async () => {
    const first = await programmatic({ code: "print(await get_weather(city='x'))", tools: TOOLS });
    const answer = {
      continuation_token: first.body.continuation_token,
      tool_results: [{ call_id: first.body.tool_calls[0].id, result: 1 }],
    };
    const gone = { status: 404, body: { error: "Execution not found or expired" } };
    expect(await bob.post("/exec/programmatic", answer)).toMatchObject(gone);
    expect(await programmatic({ ...answer, tool_results: [{ call_id: "call_no", result: 1 }] })).toMatchObject({
      status: 404,
    });
    expect((await programmatic(answer)).body).toMatchObject({ status: "completed", stdout: "1\n" });
    expect(await programmatic(answer)).toMatchObject(gone);
    expect(await programmatic({ ...answer, continuation_token: "nonsense" })).toMatchObject(gone);
  });

  test.each([
    [{ code: undefined }, "Missing required field: code"],
    [{ tools: undefined }, "Missing required field: tools (must be a non-empty array)"],
    [{ tools: [] }, "Missing required field: tools (must be a non-empty array)"],
    [{ tools: [{ description: "x" }] }, "A tool needs a name."],
    [{ language: "bash" }, 'Unsupported language "bash"; the supported value is "python"'],
    [{ timeout: "5" }, "timeout must be a positive number of milliseconds"],
    [{ continuation_token: "x" }, "tool_results must be an array when continuation_token is provided"],
    [
      { continuation_token: "x", tool_results: [] },
      "tool_results must be a non-empty array; resubmit with at least one result per pending tool call",
    ],
    [{ continuation_token: "x", tool_results: [{}] }, "tool_results[0].call_id must be a string"],
    [{ continuation_token: {}, tool_results: [] }, "Invalid continuation token"],
  ])("%j is refused", async (wrong, error) => {
    expect(await programmatic({ code: "1", tools: TOOLS, ...wrong })).toMatchObject({ status: 400, body: { error } });
  });
});

test("health needs no key, all else does, and a key may be in the address", async () => {
  const ask = async (path: string, headers: Record<string, string> = {}) =>
    await createClient(`${server.url}/librechat/v1`, headers).get(path);
  expect(await ask("/health")).toMatchObject({ status: 200, body: { status: "ok" } });
  expect(await ask("/files/x")).toMatchObject({ status: 401, body: { error: "Authentication required" } });
  const basic = `Basic ${Buffer.from(`librechat:${ALICE}`).toString("base64")}`;
  expect((await ask("/files/x", { authorization: basic })).status).toBe(404);
  expect((await ask("/files/x", { authorization: `Bearer ${ALICE}` })).status).toBe(404);
});

test("who asks too often is told when to ask again", async () => {
  const limited = await startTestServer({ RATE_LIMIT_MAX_REQUESTS: "1" });
  try {
    await limited.post("/librechat/v1/exec", { lang: "py", code: "1" });
    expect(await limited.post("/librechat/v1/exec", { lang: "py", code: "1" })).toMatchObject({
      status: 429,
      body: { error: "rate_limited", message: expect.any(String), retry_after_seconds: expect.any(Number) },
    });
  } finally {
    await limited.stop(0);
  }
});

test("a client that goes away interrupts its program", async () => {
  const body = { lang: "py", code: "while True: pass" };
  await leaveWhileItRuns(server, alice, "/exec", body);
  await leaveWhileItRuns(server, alice, "/exec/programmatic", { ...body, tools: [{ name: "a" }] });
});

describe.skipIf(TEST_WHEELS === "")("figures", () => {
  let own: TestServer;
  beforeAll(async () => {
    own = await startTestServer({ PYODIDE_PACKAGES: "matplotlib", PACKAGE_DIR: TEST_WHEELS });
  });
  afterAll(async () => await own.stop(0));
  const filesOf = async (code: string) => {
    const { body } = await own.post("/librechat/v1/exec", {
      lang: "py",
      code: `import matplotlib.pyplot as plt\nplt.plot([1, 2])\n${code}`,
    });
    return body.files.map(({ name }: { name: string }) => name);
  };

  test("a figure that is saved, or only shown, is a file, once", async () => {
    expect(await filesOf("plt.savefig('chart.png')")).toEqual(["chart.png"]);
    expect(await filesOf("plt.show()")).toEqual(["plot_1.png"]);
  });
});
