import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { text } from "node:stream/consumers";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createClient, type Reply, type TestClient } from "../support/client.ts";
import { testConfig } from "../support/config.ts";
import { py } from "../support/engine.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const KEYS = { alice: "alice-key-of-sixteen", bob: "bob-key-of-sixteen!!", limited: "limited-key-of-sixteen" };
const OPERATOR_SECRET = "operator/token+0123456789";
const ALICE_SECRET = "alice-token-0123456789";
const SEAL = "ab".repeat(32);

/** What each host was sent, the last request last. */
interface Host {
  readonly server: Server;
  readonly origin: string;
  readonly requests: { url: string; headers: IncomingMessage["headers"]; body: string }[];
}

let away: Host;
let host: Host;
let server: TestServer;
let dataDir: string;
let alice: TestClient;
let bob: TestClient;
const settings = () => ({
  DATA_DIR: dataDir,
  LOG_DIR: path.join(dataDir, "logs"),
  LOG_LEVEL: "trace",
  LOG_CODE: "true",
  API_KEYS: `alice:${KEYS.alice},bob:${KEYS.bob},bob:${KEYS.limited}:execute`,
  NETWORK_ALLOW: [host, away].map(({ origin }) => new URL(origin).host).join(","),
  NETWORK_ALLOW_PRIVATE: "true",
  SECRETS: JSON.stringify({
    OPERATOR_TOKEN: OPERATOR_SECRET,
    SHARED_TOKEN: { value: "shared-token-0123456789", hosts: [host.origin], principals: ["bob"] },
  }),
  SECRETS_KEY: SEAL,
  PRINCIPALS_FILE: path.join(dataDir, "principals.json"),
});

async function startHost(handle: (request: IncomingMessage, response: ServerResponse) => unknown): Promise<Host> {
  const requests: Host["requests"] = [];
  const server = createServer(async (request, response) => {
    requests.push({ url: request.url ?? "", headers: request.headers, body: await text(request) });
    await handle(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, requests, origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

beforeAll(async () => {
  away = await startHost((request, response) => {
    if (request.url !== "/begins") return response.end(request.headers.authorization ?? "nothing");
    // The rest comes when another host was told, and has told this one.
    response.write("begun|");
    return host.server.once("told", (known) => response.end(known));
  });
  host = await startHost((request, response) => {
    const { authorization = "", "x-plain": plain = "" } = request.headers;
    switch (request.url?.split("?")[0]) {
      case "/echo-headers":
        response.writeHead(200, authorization, { "x-echo": String(authorization), "x-plain-echo": String(plain) });
        return response.end();
      case "/echo-location":
        response.writeHead(302, { location: `/echo?token=${encodeURIComponent(String(authorization))}` });
        return response.end();
      case "/echo-slowly":
        // One piece for each character: none holds the whole.
        for (const character of `<${authorization}|${plain}>`) response.write(character);
        return response.end();
      case "/echo-range": {
        const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
        const whole = `${authorization}|${plain}`;
        if (from === undefined) return response.end(whole);
        return response.writeHead(206).end(whole.slice(Number(from), Number(to) + 1));
      }
      case "/echo-base64":
        return response.end(Buffer.from(`user:${authorization}|${plain}`).toString("base64"));
      case "/tells":
        host.server.emit("told", authorization);
        return response.end("told");
      case "/echo-gzip":
        response.setHeader("content-encoding", "gzip");
        return response.end(gzipSync(`<${authorization}>`));
      case "/same":
        return response.writeHead(302, { location: "/echo" }).end();
      case "/away":
        return response.writeHead(302, { location: `${away.origin}/` }).end();
      case "/breaks":
        return response.destroy();
      default:
        return response.end(JSON.stringify({ authorization, plain, encoding: request.headers["accept-encoding"] }));
    }
  });
  dataDir = testConfig().DATA_DIR;
  writeFileSync(
    path.join(dataDir, "principals.json"),
    JSON.stringify({
      alice: {
        network: {
          rules: {
            [host.origin]: [
              { transform: { headers: { Authorization: "Bearer ${secret:OPERATOR_TOKEN}", "X-Plain": "visible" } } },
            ],
          },
        },
      },
      "*": { network: { allowOut: [new URL(host.origin).host] } },
    }),
  );
  server = await startTestServer(settings());
  [alice, bob] = [KEYS.alice, KEYS.bob].map((key) => createClient(server.url, { authorization: `Bearer ${key}` })) as [
    TestClient,
    TestClient,
  ];
});
afterAll(async () => {
  await server?.stop(0);
  for (const { server: one } of [host, away]) {
    one?.closeAllConnections();
    one?.close();
  }
});

const FETCH = py`
  import json, urllib.error, urllib.request
  def fetch(url, headers={}, data=None):
      try:
          with urllib.request.urlopen(urllib.request.Request(url, headers=headers, data=data)) as r:
              return [r.status, r.reason, [list(h) for h in r.headers.items()], r.read().decode("latin-1")]
      except Exception as error:
          return f"{type(error).__name__}: {error}"
`;

async function run(client: TestClient, code: string, body: Record<string, unknown> = {}): Promise<Reply> {
  const context = { host: host.origin, away: away.origin, ...(body.context as object) };
  return await client.post("/api/execute", { code: `${FETCH}\n${code}`, files: "none", ...body, context });
}

async function value(client: TestClient, code: string, body?: Record<string, unknown>): Promise<unknown> {
  const reply = await run(client, code, body);
  expect(reply.body).toMatchObject({ success: true, stderr: "" });
  return reply.body.result;
}

const rules = (headers: Record<string, string>, at = host.origin) => ({
  rules: { [at]: [{ transform: { headers } }] },
});
const last = () => host.requests.at(-1)?.headers;

describe("a secret reaches its host, and no one else", () => {
  test("the host is told, whatever the code says", async () => {
    await value(alice, 'fetch(host + "/echo")');
    expect(last()).toMatchObject({ authorization: `Bearer ${OPERATOR_SECRET}`, "x-plain": "visible" });
    // In place of what the code has set, and not to be named away.
    await value(alice, 'fetch(host + "/echo", {"authorization": "mine", "Connection": "Authorization"})');
    expect(last()?.authorization).toBe(`Bearer ${OPERATOR_SECRET}`);
  });

  test.each(["/echo-headers", "/echo-slowly", "/echo"])("%s gives the code none of it, and all else", async (url) => {
    const echoed = JSON.stringify(await value(alice, `fetch(host + "${url}")`));
    expect(last()?.authorization).toBe(`Bearer ${OPERATOR_SECRET}`);
    expect(echoed).toContain("visible");
    expect(echoed).toContain("Bearer *");
    expect(echoed).not.toContain("token+0123");
  });

  test("nor does a redirect that has it in its URL, followed or not", async () => {
    const code = py`
      class Stay(urllib.request.HTTPRedirectHandler):
          def redirect_request(self, *_): return None
      try:
          urllib.request.build_opener(Stay).open(host + "/echo-location")
      except urllib.error.HTTPError as error:
          out = error.headers["Location"]
      out`;
    expect(await value(alice, code)).toBe("/echo?token=Bearer%20***");
    await value(alice, 'fetch(host + "/echo-location")');
    expect(host.requests.at(-1)?.url).toBe("/echo?token=Bearer%20***");
  });

  test("a host is asked not to compress; what one compresses all the same is its own doing", async () => {
    await value(alice, 'fetch(host + "/echo", {"Accept-Encoding": "gzip"})');
    expect(last()?.["accept-encoding"]).toBe("identity");
    expect(await value(alice, 'fetch(host + "/echo-gzip")[0]')).toBe(200);
  });

  test("not in pieces that the code asks for", async () => {
    const code = py`
      [fetch(host + "/echo-range", {name: f"bytes={i}-{i + 5}", "If-Range": '"x"'})[3] for i in (0, 6) for name in ("Range", "rAnge")]`;
    const whole = `Bearer ${"*".repeat(OPERATOR_SECRET.length)}|visible`;
    expect(await value(alice, code)).toEqual(Array(4).fill(whole));
    expect(last()).not.toHaveProperty("range");
    expect(last()).not.toHaveProperty("if-range");
    // The control: where no rule tells a host a secret, ranges are the code's to ask for.
    expect(await value(bob, 'fetch(host + "/echo-range", {"Range": "bytes=0-0"})[0]')).toBe(206);
  });

  test("nor in base64 with something before it", async () => {
    const echoed = String(await value(alice, 'fetch(host + "/echo-base64")[3]'));
    const read = Buffer.from(echoed.replaceAll("*", "A"), "base64").toString("latin1");
    expect(read).toMatch(/^user:Bearer .*visible$/s);
    expect(read).not.toContain("token");
    expect(read).not.toContain("0123");
  });

  test("nor by a response that began before its host was told", async () => {
    const code = py`
      held = urllib.request.urlopen(away + "/begins")
      first = held.read(6)
      [first.decode(), fetch(host + "/tells")[3], held.read().decode()]`;
    expect(await value(alice, code)).toEqual(["begun|", "told", `Bearer ${"*".repeat(OPERATOR_SECRET.length)}`]);
  });

  test("nor another host: a redirect there goes without it, and so does what was read here", async () => {
    // The control: to the same host it goes along.
    await value(alice, 'fetch(host + "/same")');
    expect(last()).toMatchObject({ authorization: `Bearer ${OPERATOR_SECRET}` });
    expect(await value(alice, 'fetch(host + "/away")[3]')).toBe("nothing");
    expect(away.requests.at(-1)?.headers.authorization).toBeUndefined();
  });

  test("what one host has told another is struck out there, too", async () => {
    const code = py`
      fetch(host + "/echo")
      fetch(away, {"Authorization": "known to be " + known})[3]`;
    const known = (context: string) => ({ context: { known: context } });
    expect(await value(alice, code, known(OPERATOR_SECRET))).toBe(`known to be ${"*".repeat(OPERATOR_SECRET.length)}`);
    expect(await value(alice, code, known("another-0123456789"))).toBe("known to be another-0123456789");
  });

  test("what the code writes in a URL, a header or a body stays as it is", async () => {
    const name = "${secret:OPERATOR_TOKEN}";
    const code = `fetch(host + "/echo?a=${name}", {"X-Mine": "${name}", "X-Plain": "${name}"}, b"${name}")`;
    await value(alice, code);
    const request = host.requests.at(-1);
    expect(decodeURI(request?.url ?? "")).toBe(`/echo?a=${name}`);
    expect(request).toMatchObject({ body: name, headers: { "x-mine": name, "x-plain": "visible" } });
    expect(JSON.stringify({ ...request, headers: { ...request?.headers, authorization: "" } })).not.toContain(
      OPERATOR_SECRET,
    );
  });

  test("an error says nothing of it", async () => {
    const error = await value(alice, 'fetch(host + "/breaks")');
    expect(last()?.authorization).toBe(`Bearer ${OPERATOR_SECRET}`);
    expect(error).toMatch(/Error: /);
    expect(error).not.toContain("token");
  });
});

describe("a principal's secrets", () => {
  test("are put, named and deleted, and never read", async () => {
    const put = await alice.put("/api/secrets/TOKEN", JSON.stringify({ value: ALICE_SECRET }), {
      "content-type": "application/json",
    });
    expect(put).toMatchObject({ status: 200, body: { success: true, secret: { name: "TOKEN", hosts: null } } });
    const replies = [await alice.get("/api/secrets"), await alice.get("/api/secrets/TOKEN"), put];
    expect(replies[0]?.body).toMatchObject({ secrets: [{ name: "TOKEN", hosts: null }], count: 1 });
    expect(JSON.stringify(replies.map(({ body }) => body))).not.toContain(ALICE_SECRET);
    expect((await bob.get("/api/secrets")).body).toMatchObject({ secrets: [], count: 0 });
    expect((await bob.get("/api/secrets/TOKEN")).body).toMatchObject({ code: "secret_not_found" });
    expect((await bob.delete("/api/secrets/TOKEN")).status).toBe(404);
  });

  test("go along with the rules of a request of theirs", async () => {
    const network = rules({ "X-Token": "a ${secret:TOKEN} b" });
    await value(alice, 'fetch(host + "/echo")', { network });
    expect(last()).toMatchObject({ "x-token": `a ${ALICE_SECRET} b`, authorization: `Bearer ${OPERATOR_SECRET}` });
    await value(alice, 'fetch(host + "/echo")');
    expect(last()?.["x-token"]).toBeUndefined();
  });

  test("and not with another's, which is told the same as of one that is not there", async () => {
    const asked = async (name: string) =>
      (await run(bob, "1", { network: rules({ "X-Token": `\${secret:${name}}` }) })).body;
    const [theirs, none] = [await asked("TOKEN"), await asked("NONE")];
    expect(theirs).toMatchObject({ success: false, code: "unknown_secret" });
    expect(none).toMatchObject({ code: "unknown_secret", error: theirs.error.replace("TOKEN", "NONE") });
  });

  test("one of the operator's is for callers where the operator says so", async () => {
    const network = rules({ "X-Token": "${secret:SHARED_TOKEN}" });
    await value(bob, 'fetch(host + "/echo")', { network });
    expect(last()?.["x-token"]).toBe("shared-token-0123456789");
    expect((await run(alice, "1", { network })).body.code).toBe("unknown_secret");
    const other = rules({ "X-Token": "${secret:OPERATOR_TOKEN}" });
    for (const client of [alice, bob])
      expect((await run(client, "1", { network: other })).body.code).toBe("unknown_secret");
  });

  test("are for the hosts that they name", async () => {
    const put = (hosts: string[]) =>
      alice.put("/api/secrets/BOUND", JSON.stringify({ value: ALICE_SECRET, hosts }), {
        "content-type": "application/json",
      });
    expect((await put([away.origin])).body.secret.hosts).toEqual([away.origin]);
    const network = (at: string) => rules({ "X-Token": "${secret:BOUND}" }, at);
    expect((await run(alice, "1", { network: network(host.origin) })).body.code).toBe("secret_host");
    await value(alice, "fetch(away)", { network: network(away.origin) });
    expect(away.requests.at(-1)?.headers["x-token"]).toBe(ALICE_SECRET);
    expect((await put(["*.example.com"])).body.code).toBe("invalid_secret");
  });

  test("one that is gone when it is needed is an error that says so, and nothing is sent", async () => {
    const { session } = (
      await alice.post("/api/sessions", { environment: "stdlib", network: rules({ "X-Token": "${secret:TOKEN}" }) })
    ).body;
    await value(alice, 'fetch(host + "/echo")', { session: session.id, files: undefined });
    expect(last()?.["x-token"]).toBe(ALICE_SECRET);
    expect((await alice.delete("/api/secrets/TOKEN")).status).toBe(200);
    const before = host.requests.length;
    const error = await value(alice, 'fetch(host + "/echo")', { session: session.id, files: undefined });
    expect(error).toContain("There is no secret TOKEN");
    expect(host.requests.length).toBe(before);
    expect((await run(alice, "1", { network: rules({ A: "${secret:TOKEN}" }) })).body.code).toBe("unknown_secret");
  });

  test("need the scope", async () => {
    const limited = createClient(server.url, { authorization: `Bearer ${KEYS.limited}` });
    for (const reply of [await limited.get("/api/secrets"), await limited.delete("/api/secrets/A")]) {
      expect(reply).toMatchObject({ status: 403, body: { code: "missing_scope" } });
    }
  });

  test.each([
    ["no value", {}, "invalid_request"],
    ["a number", { value: 12345678 }, "invalid_request"],
    ["a line end", { value: "12345678\r\nX-Evil: 1" }, "invalid_secret"],
    ["hosts that are none", { value: "12345678", hosts: "x" }, "invalid_request"],
  ])("with %s are refused, and not repeated", async (_what, body, code) => {
    const reply = await alice.put("/api/secrets/BAD", JSON.stringify(body), { "content-type": "application/json" });
    expect(reply).toMatchObject({ status: 400, body: { success: false, code } });
    expect(reply.body.error).not.toContain("12345678");
  });
});

describe("a request narrows what the operator allows", () => {
  const hostOf = (origin: string) => new URL(origin).host;
  const reaches = async (client: TestClient, body: Record<string, unknown> = {}) =>
    await value(client, "[not isinstance(fetch(url), str) for url in (host, away)]", body);

  test("its key, its session, and itself: the narrowest of them counts", async () => {
    const both = [host, away].map(({ origin }) => hostOf(origin));
    expect(await reaches(alice)).toEqual([true, true]);
    // Of bob's key the operator says that it reaches one of them.
    expect(await reaches(bob)).toEqual([true, false]);
    expect(await reaches(bob, { network: { allowOut: both } })).toEqual([true, false]);
    expect(await reaches(alice, { network: { allowOut: [hostOf(away.origin)] } })).toEqual([false, true]);
    expect(await reaches(alice, { network: { allowOut: [] } })).toEqual([false, false]);
    const network = { allowOut: [hostOf(away.origin)] };
    const { session } = (await alice.post("/api/sessions", { environment: "stdlib", network })).body;
    const inSession = { session: session.id, files: undefined };
    expect(await reaches(alice, inSession)).toEqual([false, true]);
    expect(await reaches(alice, { ...inSession, network: { allowOut: both } })).toEqual([false, true]);
    expect(await reaches(alice, { ...inSession, network: { allowOut: [hostOf(host.origin)] } })).toEqual([
      false,
      false,
    ]);
    const { session: fork } = (await alice.post(`/api/sessions/${session.id}/fork`, {})).body;
    expect(await reaches(alice, { session: fork.id, files: undefined })).toEqual([false, true]);
  });

  test.each([
    ["a host that the server does not allow", () => rules({ A: "1" }, "http://evil.example")],
    ["a host that the request itself does not allow", () => ({ allowOut: [], ...rules({ A: "1" }) })],
    ["every host", () => rules({ A: "1" }, "*")],
    ["subdomains", () => rules({ A: "1" }, "*.example.com")],
    ["a header that the operator sets", () => rules({ AUTHORIZATION: "mine" })],
    ["a header with a line end", () => rules({ A: "1\r\nB: 2" })],
    ["the header Host", () => rules({ Host: "evil.example" })],
  ])("rules for %s are refused, on an execution and a session", async (_what, network) => {
    expect((await run(alice, "1", { network: network() })).body.code).toBe("invalid_network");
    expect((await alice.post("/api/sessions", { network: network() })).body.code).toBe("invalid_network");
  });

  test.each([
    ["a text", "x"],
    ["a member that has no meaning", { denyOut: [] }],
    ["a rule of another kind", { rules: { "a.example": [{ transform: { url: "x" } }] } }],
  ])("%s is refused", async (_what, network) => {
    const reply = await run(alice, "1", { network });
    expect(reply).toMatchObject({ status: 400, body: { code: "invalid_request" } });
    expect(reply.body.error).toContain("network");
  });

  test("by plain HTTP a host is not asked that has rules for https", async () => {
    const at = new URL(host.origin).host;
    const error = await value(bob, 'fetch(host + "/echo")', { network: rules({ A: "1" }, at) });
    expect(error).toContain("hold for https only");
  });
});

test("no log, and no file of the server's, has a secret in it; the log has the names", async () => {
  await server.stop(0);
  const texts: string[] = [];
  for (const name of readdirSync(dataDir, { recursive: true, encoding: "utf8" })) {
    const file = path.join(dataDir, name);
    if (statSync(file).isFile()) texts.push(`${name}\n${readFileSync(file, "latin1")}`);
  }
  const all = texts.join("\n");
  expect(all).toContain('"secrets":"OPERATOR_TOKEN"');
  expect(all).toContain("secret_put");
  // Of the code that a test sent: LOG_CODE is on. No secret of alice's was ever in one.
  expect(all).not.toContain(ALICE_SECRET);
  expect(all).not.toContain(`Bearer ${OPERATOR_SECRET}`);
});

test("stored secrets and a session's network are there after a restart; with another key they are not", async () => {
  const json = { "content-type": "application/json" };
  const clientOf = ({ url }: TestServer) => createClient(url, { authorization: `Bearer ${KEYS.alice}` });
  server = await startTestServer(settings());
  let client = clientOf(server);
  await client.put("/api/secrets/KEPT", JSON.stringify({ value: ALICE_SECRET }), json);
  const network = rules({ "X-Token": "${secret:KEPT}" });
  const { session } = (await client.post("/api/sessions", { environment: "stdlib", network })).body;
  await server.stop(0);

  server = await startTestServer(settings());
  client = clientOf(server);
  await value(client, 'fetch(host + "/echo")', { session: session.id, files: undefined });
  expect(last()?.["x-token"]).toBe(ALICE_SECRET);
  await server.stop(0);

  server = await startTestServer({ ...settings(), SECRETS_KEY: "cd".repeat(32) });
  client = clientOf(server);
  expect((await run(client, "1", { network })).body.code).toBe("secret_unreadable");
  expect((await client.get("/api/secrets/KEPT")).status).toBe(200);
});

describe("a server does not start with", () => {
  const fresh = () => ({ ...settings(), DATA_DIR: testConfig().DATA_DIR, LOG_DIR: "none" });
  const network = (at: string, value: string) => ({ alice: { network: rules({ A: value }, at) } });
  test.each([
    ["rules for a key that there is not", { carol: {} }, "is no key's name"],
    ["rules for a host that is not allowed", network("https://evil.example", "1"), "may not be reached"],
    ["rules that name no secret of its own, where callers can have none", network("HOST", "${secret:NONE}"), "NONE"],
    ["another form", { alice: { networks: {} } }, "Unrecognized key"],
  ])("%s", async (_what, principals, message) => {
    const file = path.join(dataDir, "principals-wrong.json");
    writeFileSync(file, JSON.stringify(principals).replace("HOST", host.origin));
    const start = startTestServer({ ...fresh(), PRINCIPALS_FILE: file, SECRETS_KEY: "" });
    await expect(start).rejects.toThrow(message);
    await expect(start).rejects.toThrow("PRINCIPALS_FILE");
  });

  test("a key that is none, which it does not repeat", async () => {
    const start = startTestServer({ ...fresh(), SECRETS_KEY: "not-a-key-at-all" });
    await expect(start).rejects.toThrow("openssl rand -hex 32");
    await expect(start).rejects.not.toThrow("not-a-key-at-all");
  });
});
