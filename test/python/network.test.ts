import { readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { text } from "node:stream/consumers";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { testConfig } from "../support/config.ts";
import { py } from "../support/engine.ts";
import { type Reply, startTestServer, type TestServer } from "../support/server.ts";

/** A folder that has wheels of requests and httpx and what they need; without it what takes those is skipped. */
const wheels = process.env.PYODIDE_EXPRESS_WHEELS ?? "";
const has = (name: string) => wheels !== "" && readdirSync(wheels).some((file) => file.startsWith(`${name}-`));

let target: Server;
let server: TestServer;
let logDir: string;
let base: string;

beforeAll(async () => {
  let waiting: (() => void)[] = [];
  target = createServer(async (request, response) => {
    switch (request.url?.split("?")[0]) {
      case "/gzip":
        response.setHeader("content-encoding", "gzip");
        response.end(gzipSync("unzipped"));
        break;
      case "/redirect":
        response.writeHead(302, { location: "/echo?redirected" }).end();
        break;
      case "/away":
        response.writeHead(302, { location: "http://metadata.example/latest" }).end();
        break;
      case "/large":
        for (let i = 0; i < 30; i++) response.write(Buffer.alloc(100_000, i));
        response.end();
        break;
      case "/together": {
        // Nobody gets an answer before three have asked.
        waiting.push(() => response.end("together"));
        if (waiting.length < 3) break;
        for (const answer of waiting) answer();
        waiting = [];
        break;
      }
      case "/silent":
        break;
      case "/missing":
        response.writeHead(404, { "content-type": "text/plain" }).end("nothing here");
        break;
      default:
        response.setHeader("content-type", "application/json");
        response.setHeader("set-cookie", ["a=1", "b=2"]);
        response.end(JSON.stringify({ method: request.method, url: request.url, body: await text(request) }));
    }
  });
  await new Promise<void>((resolve) => target.listen(0, "127.0.0.1", resolve));
  base = `http://127.0.0.1:${(target.address() as AddressInfo).port}`;
  const packages = ["requests", "httpx"].filter(has).join(",") || "none";
  const settings = {
    NETWORK_ALLOW: `${new URL(base).host},allowed.example`,
    NETWORK_ALLOW_PRIVATE: "true",
    PYODIDE_PACKAGES: packages,
    PACKAGE_DIR: wheels,
  };
  logDir = path.join(testConfig().DATA_DIR, "logs");
  server = await startTestServer({ ...settings, LOG_DIR: logDir });
});
afterAll(async () => {
  await server?.stop(0);
  target.closeAllConnections();
  target.close();
});

async function run(code: string, body: Record<string, unknown> = {}): Promise<Reply["body"]> {
  return (await server.post("/api/execute", { code, context: { base }, files: "none", ...body })).body;
}

async function value(code: string): Promise<unknown> {
  const { success, result, stderr } = await run(code);
  expect(stderr).toBe("");
  expect(success).toBe(true);
  return result;
}

describe("urllib.request", () => {
  test("gets, with status, headers and body", async () => {
    const code = py`
      import json, urllib.request
      with urllib.request.urlopen(base + "/echo?q=1") as response:
          out = [response.status, response.reason, response.headers.get_all("Set-Cookie"), json.load(response)]
      out`;
    const echo = { method: "GET", url: "/echo?q=1", body: "" };
    expect(await value(code)).toEqual([200, "OK", ["a=1", "b=2"], echo]);
  });

  test("posts", async () => {
    const code = py`
      import urllib.request
      request = urllib.request.Request(base, data="ü".encode(), method="PATCH", headers={"X-A": "1"})
      urllib.request.urlopen(request).read().decode()`;
    expect(JSON.parse(String(await value(code)))).toEqual({ method: "PATCH", url: "/", body: "ü" });
  });

  test("follows a redirect, and not to where it may not go", async () => {
    const code = 'import urllib.request\nurllib.request.urlopen(base + "/redirect").read().decode()';
    expect(await value(code)).toContain("/echo?redirected");
    expect(await run(code.replace("redirect", "away"))).toMatchObject({
      error: "<urlopen error host metadata.example is not in the server's NETWORK_ALLOW>",
      errorInfo: { type: "URLError" },
    });
  });

  test("raises HTTPError for 404, with the body in it", async () => {
    const code = py`
      import urllib.error, urllib.request
      try:
          urllib.request.urlopen(base + "/missing")
      except urllib.error.HTTPError as error:
          out = [error.code, error.read().decode()]
      out`;
    expect(await value(code)).toEqual([404, "nothing here"]);
  });

  test("streams a large body, and leaves one unread", async () => {
    const code = py`
      import hashlib, urllib.request
      response = urllib.request.urlopen(base + "/large")
      first = response.read(10)
      for _ in range(40):
          urllib.request.urlopen(base + "/large").read(1)
      [first.hex(), len(response.read())]`;
    expect(await value(code)).toEqual(["00".repeat(10), 2_999_990]);
  });

  test.each([
    [
      "a host that is not allowed",
      "http://example.com/",
      "URLError",
      "host example.com is not in the server's NETWORK_ALLOW",
    ],
    [
      "the cloud's metadata",
      "http://169.254.169.254/",
      "URLError",
      "host 169.254.169.254 is not in the server's NETWORK_ALLOW",
    ],
    ["a name that nobody has", "https://allowed.example/", "URLError", "host allowed.example: its name"],
  ])("%s is a Python exception that says so", async (_what, url, type, message) => {
    const { error, errorInfo } = await run(`import urllib.request\nurllib.request.urlopen("${url}")`);
    expect({ type: errorInfo.type, error }).toEqual({ type, error: expect.stringContaining(message) });
  });

  test("times out", async () => {
    const code = `import urllib.request\nurllib.request.urlopen(base + "/silent", timeout=0.05)`;
    expect((await run(code)).errorInfo.type).toBe("TimeoutError");
  });
});

test("http.client sends an iterator in chunks and serves one request after the other", async () => {
  const code = py`
    import http.client, json
    connection = http.client.HTTPConnection(base.removeprefix("http://"))
    out = []
    for body in (iter([b"ab", b"cd"]), b"plain"):
        connection.request("POST", "/x", body=body)
        out.append(json.loads(connection.getresponse().read())["body"])
    connection.request("HEAD", "/gzip")
    response = connection.getresponse()
    [*out, response.status, response.read()]`;
  expect(await value(code)).toEqual(["abcd", "plain", 200, "b''"]);
});

test("an execution that waits for a response stops at its timeout, and its interpreter is used again", async () => {
  const discarded = async () => (await server.get("/api/status")).body.pool.discarded;
  const before = await discarded();
  const { errorInfo, stderr } = await run('import urllib.request\nurllib.request.urlopen(base + "/silent")', {
    timeout: 300,
  });
  expect(errorInfo).toMatchObject({ type: "Timeout", message: "Execution timed out after 300ms" });
  expect(stderr).toContain("KeyboardInterrupt");
  expect(await discarded()).toEqual(before);
});

test("there is no other way out: sockets do not work", async () => {
  const { errorInfo } = await run(`import socket\nsocket.create_connection(("127.0.0.1", ${new URL(base).port}), 1)`);
  expect(["PermissionError", "gaierror", "OSError"]).toContain(errorInfo.type);
});

test("what user code may write to the device by itself goes through the same checks", async () => {
  const code = py`
    from sandbox_runner import device
    def start(url, **more):
        request = {"method": "GET", "url": url, "headers": [], "body": "", "timeoutMs": None, **more}
        return device.ask("http-wait", {"ids": [device.ask("http-start", request)], "timeoutMs": None})[0]
    def attempt(operation, argument):
        try:
            return device.ask(operation, argument)
        except OSError as error:
            return str(error)
    [start("http://example.com")["failure"]["kind"], attempt("http-start", {"url": 1}), attempt("http-read", None),
     attempt("http-wait", {"ids": [1], "timeoutMs": None})[0]["failure"]["kind"]]`;
  expect(await value(code)).toEqual(["refused", ...Array(2).fill("the argument is not of the right form"), "protocol"]);
});

test("the security log names every host that was asked, and by whom", async () => {
  await run('import urllib.request\nurllib.request.urlopen(base + "/echo?token=secret").read()');
  await run('import urllib.request\nurllib.request.urlopen("http://refused.example/?token=secret")');
  const lines = (await readFile(path.join(logDir, "security.log"), "utf8")).trim().split("\n");
  const events = lines.map((line) => JSON.parse(line)).filter(({ event }) => event.startsWith("network_"));
  expect(events.at(-2)).toMatchObject({
    event: "network_request",
    ip: expect.stringContaining("127.0.0.1"),
    requestId: expect.any(String),
    principal: expect.any(String),
    details: { method: "GET", host: "127.0.0.1", port: Number(new URL(base).port), status: 200 },
  });
  expect(events.at(-1)).toMatchObject({ event: "network_refused", details: { host: "refused.example", port: 80 } });
  expect(lines.join("\n")).not.toContain("token=secret");
});

describe.skipIf(!has("requests"))("requests", () => {
  test("gets JSON, text in gzip, cookies, and follows redirects", async () => {
    const code = py`
      r = requests.get(base + "/redirect")
      zipped = requests.get(base + "/gzip")
      [r.status_code, r.json()["url"], len(r.history), dict(r.cookies), zipped.text, zipped.headers["Content-Encoding"]]`;
    expect(await value(code)).toEqual([200, "/echo?redirected", 1, { a: "1", b: "2" }, "unzipped", "gzip"]);
  });

  test("posts JSON, forms, files and generators", async () => {
    const code = py`
      post = lambda **body: requests.post(base, **body).json()["body"]
      [post(json={"a": "ü"}), post(data={"a": 1}), "hello" in post(files={"f": ("a.txt", b"hello")}), post(data=iter([b"1", b"2"]))]`;
    expect(await value(code)).toEqual(['{"a": "\\u00fc"}', "a=1", true, "12"]);
  });

  test("streams, and keeps a session", async () => {
    const code = py`
      with requests.Session() as session:
          with session.get(base + "/large", stream=True) as response:
              size = sum(len(piece) for piece in response.iter_content(10_000))
          out = [size, *(session.get(base).status_code for _ in range(3))]
      out`;
    expect(await value(code)).toEqual([3_000_000, 200, 200, 200]);
  });

  test.each([
    [
      'requests.get("https://example.com/")',
      "ConnectionError",
      "host example.com is not in the server's NETWORK_ALLOW",
    ],
    ['requests.get(base + "/away")', "ConnectionError", "host metadata.example is not in the server's NETWORK_ALLOW"],
    ['requests.get(base + "/silent", timeout=0.05)', "ReadTimeout", "timed out"],
    ['requests.get(base.replace("http:", "https:"))', "SSLError", "a secure connection was not possible"],
    ['requests.get(base + "/missing").raise_for_status()', "HTTPError", "404 Client Error"],
  ])("%s raises requests' own %s", async (code, type, message) => {
    const { error, errorInfo } = await run(code);
    expect({ type: errorInfo.type, error }).toEqual({ type, error: expect.stringContaining(message) });
  });
});

describe.skipIf(!has("httpx"))("httpx", () => {
  test("synchronously", async () => {
    const code = py`
      r = httpx.post(base + "/redirect", json={"a": 1}, follow_redirects=True)
      with httpx.stream("GET", base + "/large") as response:
          size = sum(len(piece) for piece in response.iter_bytes())
      [r.status_code, r.json()["url"], httpx.get(base + "/gzip").text, size, httpx.get(base + "/missing").reason_phrase]`;
    expect(await value(code)).toEqual([200, "/echo?redirected", "unzipped", 3_000_000, "Not Found"]);
  });

  test("asynchronously: requests go on side by side, and beside timers", async () => {
    const code = py`
      import asyncio
      async with httpx.AsyncClient() as client:
          ticks = []
          async def tick():
              while True:
                  ticks.append(1)
                  await asyncio.sleep(0.001)
          ticking = asyncio.create_task(tick())
          responses = await asyncio.gather(*(client.get(base + "/together") for _ in range(3)))
          async with client.stream("GET", base + "/large") as response:
              size = sum([len(piece) async for piece in response.aiter_bytes()])
          ticking.cancel()
      [[r.text for r in responses], size, len(ticks) > 0]`;
    expect(await value(code)).toEqual([["together", "together", "together"], 3_000_000, true]);
  });

  test("a request that is cancelled harms none that follows", async () => {
    const code = py`
      import asyncio
      async with httpx.AsyncClient(timeout=None) as client:
          try:
              async with asyncio.timeout(0.05):
                  await client.get(base + "/silent")
          except TimeoutError:
              out = (await client.get(base)).status_code
      out`;
    expect(await value(code)).toBe(200);
  });

  test.each([
    ['httpx.get("https://example.com/")', "ConnectError", "host example.com is not in the server's NETWORK_ALLOW"],
    ['httpx.get(base + "/silent", timeout=0.05)', "ReadTimeout", "no response within 50 ms"],
    ['httpx.get("ftp://example.com/")', "UnsupportedProtocol", "unsupported protocol"],
  ])("%s raises httpx' own %s", async (code, type, message) => {
    const { error, errorInfo } = await run(code);
    expect({ type: errorInfo.type, error }).toEqual({ type, error: expect.stringContaining(message) });
  });
});
