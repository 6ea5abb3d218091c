import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createClient, type Reply, type TestClient } from "../support/client.ts";
import { TEST_WHEELS } from "../support/config.ts";
import { leaveWhileItRuns } from "../support/leave-while-it-runs.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const ALICE = "a-key-of-dify-tests";
let server: TestServer;
let client: TestClient;

beforeAll(async () => {
  server = await startTestServer({ API_KEYS: `alice:${ALICE}` });
  client = createClient(server.url, { "X-Api-Key": ALICE });
});
afterAll(async () => await server.stop(0));

/** As Dify sends it. */
const run = async (code: string, more: Record<string, unknown> = {}): Promise<Reply> =>
  await client.post("/v1/sandbox/run", { language: "python3", code, preload: "", enable_network: true, ...more });

/** A node of code as Dify wraps it: the inputs in base64, and the result between marks. */
const codeNode = (code: string, inputs: object): string =>
  [
    code,
    "",
    "import json",
    "from base64 import b64decode",
    "",
    `inputs_obj = json.loads(b64decode('${Buffer.from(JSON.stringify(inputs)).toString("base64")}').decode('utf-8'))`,
    "",
    "output_obj = main(**inputs_obj)",
    "",
    "output_json = json.dumps(output_obj, indent=4)",
    "result = f'''<<RESULT>>{output_json}<<RESULT>>'''",
    "print(result)",
    "",
  ].join("\n");
const resultOf = ({ body }: Reply): string => /<<RESULT>>(.*)<<RESULT>>/s.exec(body.data.stdout)?.[1] ?? "";

test("a node of code gets its inputs and gives its result", async () => {
  const code = "def main(name: str, numbers: list) -> dict:\n    return {'text': f'Hi {name}', 'sum': sum(numbers)}";
  const reply = await run(codeNode(code, { name: "Zoë 日本", numbers: [1, 2.5] }));
  expect(reply).toMatchObject({
    status: 200,
    body: { code: 0, message: "success", data: { error: "", stderr: "", exit_code: 0 } },
  });
  expect(JSON.parse(resultOf(reply))).toEqual({ text: "Hi Zoë 日本", sum: 3.5 });
});

test("large inputs are part of the code", async () => {
  const reply = await run(codeNode("def main(text):\n    return {'length': len(text)}", { text: "é".repeat(300_000) }));
  expect(JSON.parse(resultOf(reply))).toEqual({ length: 300_000 });
});

test("preloaded code runs first", async () => {
  const reply = await run("print(base64.b64encode(b'a').decode())", { preload: "import base64\n" });
  expect(reply.body.data.stdout).toBe("YQ==\n");
});

test("a failing node has its traceback as its error", async () => {
  const { status, body } = await run(codeNode("def main(x):\n    return {'r': 1 / x}", { x: 0 }));
  expect(status).toBe(200);
  expect(body).toMatchObject({ code: 0, message: "success", data: { exit_code: 255 } });
  expect(body.data.error).toBe(`process exited with code 255\n${body.data.stderr}`);
  expect(body.data.stderr).toMatch(/^Traceback .*ZeroDivisionError: division by zero\n$/s);
});

test("what is logged is no error", async () => {
  const { body } = await run("import sys\nprint('noted', file=sys.stderr)\nprint('done')");
  expect(body.data).toEqual({ stdout: "done\n", stderr: "noted\n", error: "", exit_code: 0 });
});

test("a program that exits has its own status", async () => {
  const { body } = await run("import sys\nsys.exit(3)");
  expect(body.data).toEqual({ stdout: "", stderr: "", error: "process exited with code 3\n", exit_code: 3 });
});

test("a program that takes too long is stopped", async () => {
  const short = await startTestServer({ EXECUTION_TIMEOUT_MS: "300" });
  try {
    const { body } = await short.post("/v1/sandbox/run", { language: "python3", code: "print(1)\nwhile True: pass" });
    expect(body.data).toMatchObject({ stdout: "1\n", exit_code: -1 });
    expect(body.data.error).toMatch(/^process exited with code -1\nerror: timeout\n/);
  } finally {
    await short.stop(0);
  }
});

test("without enable_network nothing is reached that the server would allow", async () => {
  const host = createServer((_request, response) => response.end("there"));
  await once(host.listen(0, "127.0.0.1"), "listening");
  const address = `127.0.0.1:${(host.address() as AddressInfo).port}`;
  const open = await startTestServer({ NETWORK_ALLOW: address, NETWORK_ALLOW_PRIVATE: "true" });
  const code = `import urllib.request\ntry:\n  print(urllib.request.urlopen('http://${address}').status)\nexcept Exception as e:\n  print(type(e).__name__)`;
  const ask = async (enable_network: boolean | undefined) =>
    (await open.post("/v1/sandbox/run", { language: "python3", code, enable_network })).body.data.stdout;
  try {
    expect(await ask(true)).toBe("200\n");
    expect(await ask(false)).not.toBe("200\n");
    expect(await ask(undefined)).not.toBe("200\n");
  } finally {
    await open.stop(0);
    host.close();
  }
});

test("nothing of one run is there in the next", async () => {
  await run("import builtins\nbuiltins.left = 1\nopen('left', 'w').write('x')");
  const { body } = await run("import os, builtins\nprint(os.listdir('.'), hasattr(builtins, 'left'))");
  expect(body.data.stdout).toBe("[] False\n");
});

test.each([
  [{ language: undefined }, 200, "Key: 'Language' Error:Field validation for 'Language' failed on the 'required' tag"],
  [{ code: undefined }, 200, "Key: 'Code' Error:Field validation for 'Code' failed on the 'required' tag"],
  [{ code: "" }, 200, "Key: 'Code' Error:Field validation for 'Code' failed on the 'required' tag"],
  [{ code: 5 }, 200, "json: cannot unmarshal code: it must be a string"],
  [{ preload: [] }, 200, "json: cannot unmarshal preload: it must be a string"],
  [{ enable_network: "maybe" }, 200, "json: cannot unmarshal enable_network: it must be true or false"],
  [{ language: "nodejs" }, 200, "unsupported language: this server runs python3 alone"],
  [{ language: "ruby" }, 400, "unsupported language"],
])("%j is refused", async (wrong, status, message) => {
  expect(await run("print(1)", wrong)).toMatchObject({ status, body: { code: -400, message, data: null } });
});

test("bodies that are no JSON, and code that is too long, are refused in the same form", async () => {
  expect(await client.post("/v1/sandbox/run", "{")).toMatchObject({ status: 200, body: { code: -400, data: null } });
  expect(await client.post("/v1/sandbox/run", "[]")).toMatchObject({ status: 200, body: { code: -400, data: null } });
  expect(await run("#".repeat(11 * 1024 * 1024))).toMatchObject({
    status: 200,
    body: { code: -400, message: /too long/ },
  });
});

test("dependencies are the packages that code can import", async () => {
  expect(await client.get("/v1/sandbox/dependencies?language=python3")).toMatchObject({
    status: 200,
    body: { code: 0, message: "success", data: { dependencies: [] } },
  });
  expect((await client.get("/v1/sandbox/dependencies/refresh?language=python3")).body.data).toEqual({
    dependencies: [],
  });
  const update = { language: "python3" };
  expect((await client.post("/v1/sandbox/dependencies/update", update)).body).toEqual({
    code: 0,
    message: "success",
    data: {},
  });
  expect(await client.get("/v1/sandbox/dependencies?language=nodejs")).toMatchObject({ body: { code: -400 } });
  expect(await client.get("/v1/sandbox/dependencies")).toMatchObject({ status: 200, body: { code: -400 } });
});

test("a key is needed", async () => {
  const stranger = createClient(server.url, { "X-Api-Key": "dify-sandbox-0123456789" });
  expect(await stranger.post("/v1/sandbox/run", { language: "python3", code: "1" })).toMatchObject({
    status: 401,
    body: { code: -401, data: null },
  });
});

test("a client that goes away interrupts its run", async () => {
  await leaveWhileItRuns(server, client, "/v1/sandbox/run", { language: "python3", code: "while True: pass" });
});

describe.skipIf(TEST_WHEELS === "")("templates", () => {
  let own: TestServer;
  beforeAll(async () => {
    own = await startTestServer({ PYODIDE_PACKAGES: "jinja2", PACKAGE_DIR: TEST_WHEELS });
  });
  afterAll(async () => await own.stop(0));

  test("a template is rendered by jinja2, which Dify has loaded before", async () => {
    const preload = "import jinja2\n\nif __name__ == '__main__':\n    jinja2.Template('{{s}}').render(s='a')\n";
    const main =
      "def main(**inputs):\n    import jinja2\n    return jinja2.Template('''Hello {{ who }}{% for n in all %} {{ n }}{% endfor %}''').render(**inputs)";
    const code = codeNode(main, { who: "<World>", all: [1, 2] }).replace(
      "json.dumps(output_obj, indent=4)",
      "output_obj",
    );
    const reply = await own.post("/v1/sandbox/run", { language: "python3", code, preload, enable_network: true });
    expect(reply.body.data.error).toBe("");
    expect(resultOf(reply)).toBe("Hello <World> 1 2");
  });

  test("dependencies name it with its version", async () => {
    const { body } = await own.get("/v1/sandbox/dependencies?language=python3");
    expect(body.data.dependencies).toContainEqual({ name: "Jinja2", version: expect.stringMatching(/^3\./) });
  });
});
