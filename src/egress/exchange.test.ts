import { getEventListeners } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { answerCall } from "../sandbox/host-call.ts";
import { JsonText } from "../shared/json/json-text.ts";
import { Egress } from "./egress.ts";
import type { ExecutionNetwork } from "./exchange.ts";
import { type NameSources, Names } from "./names.ts";
import type { EgressOptions, NetworkEvent } from "./policy.ts";

type Handler = (request: IncomingMessage, response: ServerResponse) => unknown;

const HANDLERS: Readonly<Record<string, Handler>> = {
  "/echo": async (request, response) => {
    const { method, url, rawHeaders } = request;
    response.end(JSON.stringify({ method, url, rawHeaders, body: await text(request) }));
  },
  "/cookies": (_request, response) => {
    response.writeHead(201, "Made", [
      ...["Set-Cookie", "a=1", "Set-Cookie", "b=2", "X-Latin", "caf\xe9"],
      ...["Connection", "x-hop", "X-Hop", "1", "Keep-Alive", "timeout=5"],
    ]);
    response.end();
  },
  "/away": (_request, response) => response.writeHead(302, { location: "http://elsewhere.example/" }).end(),
  "/silent": () => {},
  "/stalls": (_request, response) => response.write("first"),
  "/breaks": (_request, response) => {
    response.writeHead(200, { "content-length": "100" });
    response.write("part", () => response.destroy());
  },
  "/large": (_request, response) => response.end(Buffer.alloc(300_000, "x")),
};

let server: Server;
let origin: string;
let port: number;
beforeAll(async () => {
  server = createServer((request, response) => {
    HANDLERS[request.url?.split("?")[0] ?? ""]?.(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  port = (server.address() as AddressInfo).port;
  origin = `http://127.0.0.1:${port}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

const never = new AbortController().signal;

function openProxy(options: Partial<EgressOptions> = {}): Egress {
  return new Egress({
    allow: [`127.0.0.1:${port}`, `localhost:${port}`],
    allowPrivate: true,
    timeoutMs: 10_000,
    maxRequestBytes: 1000,
    maxResponseBytes: 200_000,
    maxOpen: 3,
    ...options,
  });
}

const noSecret = async () => await Promise.reject(new Error("no rule needs a secret"));
const ownerOf = (egress: Egress) => ({ principal: "test", access: egress.access([]), reveal: noSecret });

function openNetwork(options: Partial<EgressOptions> = {}, onEvent?: (event: NetworkEvent) => void): ExecutionNetwork {
  const egress = openProxy(options);
  return egress.open(ownerOf(egress), onEvent);
}

/** Counts what is attached to promises meanwhile. */
async function attachments(work: () => Promise<void>): Promise<{ attached: number }> {
  const { then } = Promise.prototype;
  let attached = 0;
  // biome-ignore lint/suspicious/noThenProperty: what attaches to promises is what is counted.
  Promise.prototype.then = function <A, B>(this: Promise<unknown>, ...handlers: unknown[]) {
    attached++;
    return then.apply(this, handlers as never) as Promise<A | B>;
  } as never;
  try {
    await work();
  } finally {
    // biome-ignore lint/suspicious/noThenProperty: as above.
    Promise.prototype.then = then;
  }
  return { attached };
}

interface Begun {
  id: number;
  // biome-ignore lint/suspicious/noExplicitAny: what comes is what the test is about.
  head?: any;
  failure?: { kind: string; message: string };
}

/** As a sandbox's host end has it answered. @throws {Error} with what user code is told, for a refusal. */
async function call(network: ExecutionNetwork, operation: string, argument: unknown, signal: AbortSignal) {
  const { answer, body } = await answerCall(network.calls, operation, JsonText.of(argument), signal);
  if (answer.error !== undefined) throw new Error(answer.error);
  return { value: answer.value, body };
}

async function begin(network: ExecutionNetwork, url: string, request: Record<string, unknown> = {}): Promise<Begun> {
  const argument = { method: "GET", url, headers: [], body: "", timeoutMs: null, ...request };
  const { value: id } = await call(network, "http-start", argument, never);
  const { value } = await call(network, "http-wait", { ids: [id], timeoutMs: null }, never);
  return (value as [Begun])[0];
}

async function readAll(network: ExecutionNetwork, id: number): Promise<{ body: string; failure?: Begun["failure"] }> {
  let body = "";
  for (;;) {
    const answer = await call(network, "http-read", { id, timeoutMs: 500 }, never);
    if (answer.value) return { body, ...(answer.value as { failure: Begun["failure"] }) };
    if (!answer.body?.length) return { body };
    body += Buffer.from(answer.body).toString("latin1");
  }
}

const failureOf = async (url: string, options?: Partial<EgressOptions>, request?: Record<string, unknown>) => {
  using network = openNetwork(options);
  return (await begin(network, url, request)).failure;
};

describe("a request", () => {
  test("arrives as it was made, without what is not the client's to say", async () => {
    using network = openNetwork();
    const { id, head } = await begin(network, `${origin}/echo?q=1`, {
      method: "PUT",
      headers: [
        ...[
          ["X-One", "1"],
          ["x-one", "2"],
          ["Authorization", "Bearer t"],
          ["Accept-Encoding", "gzip"],
        ],
        ...[
          ["Host", "internal.example"],
          ["Content-Length", "999"],
          ["Transfer-Encoding", "chunked"],
          ["TE", "x"],
        ],
        ...[
          ["Connection", "close, x-named"],
          ["X-Named", "1"],
          ["Upgrade", "h2c"],
          ["Expect", "100-continue"],
        ],
        ...[
          ["X-Forwarded-For", "127.0.0.1"],
          ["Forwarded", "for=127.0.0.1"],
          ["X-Real-IP", "127.0.0.1"],
          ["Via", "x"],
        ],
        ["Proxy-Authorization", "Basic x"],
      ],
      body: Buffer.from("höflich").toString("base64"),
    });
    expect(head.status).toBe(200);
    const { body } = await readAll(network, id);
    expect(JSON.parse(Buffer.from(body, "latin1").toString())).toEqual({
      method: "PUT",
      url: "/echo?q=1",
      rawHeaders: [
        ...["host", `127.0.0.1:${port}`, "connection", "close"],
        ...["X-One", "1", "x-one", "2", "Authorization", "Bearer t", "Accept-Encoding", "gzip", "content-length", "8"],
      ].map((entry) => expect.stringMatching(new RegExp(`^${entry}$`, "i"))),
      body: "höflich",
    });
  });

  test("is answered with status, reason and every header, hop-by-hop ones left out", async () => {
    using network = openNetwork();
    const { head } = await begin(network, `${origin}/cookies`);
    expect(head).toMatchObject({ status: 201, reason: "Made" });
    expect(head.headers.filter(([name]: [string]) => name !== "Date" && name !== "Transfer-Encoding")).toEqual([
      ["Set-Cookie", "a=1"],
      ["Set-Cookie", "b=2"],
      ["X-Latin", "caf\xe9"],
    ]);
  });

  test("that is redirected is not followed: the next hop is a request of its own, and checked", async () => {
    using network = openNetwork();
    const { head } = await begin(network, `${origin}/away`);
    expect(head.status).toBe(302);
    const location = new Map(head.headers as [string, string][]).get("location") ?? "";
    expect((await begin(network, location)).failure).toEqual({
      kind: "refused",
      message: "host elsewhere.example is not in the server's NETWORK_ALLOW",
    });
  });

  test("several go on at a time, and the one that begins first is told first", async () => {
    using network = openNetwork();
    const start = async (path: string) =>
      (
        await call(
          network,
          "http-start",
          { method: "GET", url: origin + path, headers: [], body: "", timeoutMs: null },
          never,
        )
      ).value as number;
    const [silent, echo] = [await start("/silent"), await start("/echo")];
    const { value } = await call(network, "http-wait", { ids: [silent, echo], timeoutMs: null }, never);
    expect(value).toEqual([{ id: echo, head: expect.objectContaining({ status: 200 }) }]);
    expect((await call(network, "http-wait", { ids: [silent], timeoutMs: 0 }, never)).value).toEqual([]);
  });
});

describe("refused:", () => {
  test("everything, where NETWORK_ALLOW is empty", async () => {
    expect(await failureOf(`${origin}/echo`, { allow: [] })).toMatchObject({
      kind: "refused",
      message: expect.stringContaining("NETWORK_ALLOW is empty"),
    });
  });

  test.each([
    ["another host", () => "http://example.com/", "host example.com is not in the server's NETWORK_ALLOW"],
    ["another port", () => "http://127.0.0.1:1/", "host 127.0.0.1:1 is not in the server's NETWORK_ALLOW"],
    ["metadata", () => "http://169.254.169.254/", "host 169.254.169.254 is not in the server's NETWORK_ALLOW"],
    ["another scheme", () => "file:///etc/passwd", 'only http and https are possible, not "file"'],
  ])("%s", async (_what, url, message) => {
    expect(await failureOf(url())).toEqual({ kind: "refused", message });
  });

  test.each(["http://127.0.0.1:PORT/", "http://2130706433:PORT/", "http://0x7f.1:PORT/", "http://localhost:PORT/"])(
    "%s: an address that is not public, although its host is allowed",
    async (url) => {
      const failure = await failureOf(url.replace("PORT", String(port)), { allowPrivate: false });
      expect(failure).toMatchObject({ kind: "refused", message: expect.stringMatching(/not (a )?public/) });
      expect(failure?.message).not.toContain("::1");
    },
  );

  test("link-local addresses even with NETWORK_ALLOW_PRIVATE", async () => {
    expect(await failureOf("http://169.254.169.254/", { allow: ["169.254.169.254"] })).toMatchObject({
      kind: "refused",
    });
    expect(await failureOf("http://[::ffff:a9fe:a9fe]/", { allow: ["*"] })).toMatchObject({ kind: "refused" });
  });

  test.each(["CONNECT", "TRACE", "connect"])("the method %s", async (method) => {
    expect(await failureOf(`${origin}/echo`, {}, { method })).toMatchObject({ kind: "refused" });
  });

  test.each([
    ["a line break in a value", [["X-A", "1\r\nX-B: 2"]]],
    ["a line break in a name", [["X-A\r\nX-B", "1"]]],
    ["what is not Latin-1", [["X-A", "€"]]],
    ["too many of them", Array.from({ length: 900 }, (_, i) => [`X-${i}`, "x".repeat(100)])],
  ])("headers with %s", async (_what, headers) => {
    expect(await failureOf(`${origin}/echo`, {}, { headers })).toMatchObject({ kind: "refused" });
  });

  test("a body over its limit", async () => {
    const body = Buffer.alloc(1001).toString("base64");
    expect(await failureOf(`${origin}/echo`, {}, { method: "POST", body })).toMatchObject({ kind: "refused" });
  });

  test("a response over its limit, once it is", async () => {
    using network = openNetwork();
    const { id } = await begin(network, `${origin}/large`);
    const { body, failure } = await readAll(network, id);
    expect(body.length).toBeLessThanOrEqual(200_000);
    expect(failure).toMatchObject({ kind: "refused", message: expect.stringContaining("over 200000 bytes") });
  });

  test("more at a time than a principal may, over all its executions, until one is closed or read", async () => {
    const proxy = openProxy();
    using first = proxy.open(ownerOf(proxy));
    using second = proxy.open(ownerOf(proxy));
    using other = proxy.open({ ...ownerOf(proxy), principal: "other" });
    const opened = [];
    for (const network of [first, second, second]) opened.push(await begin(network, `${origin}/stalls`));
    expect((await begin(first, `${origin}/echo`)).failure).toMatchObject({ kind: "refused" });
    expect((await begin(other, `${origin}/echo`)).head.status).toBe(200);
    await call(first, "http-close", { ids: [opened[0]?.id] }, never);
    const { id } = await begin(first, `${origin}/echo`);
    await readAll(first, id);
    expect((await begin(first, `${origin}/echo`)).head.status).toBe(200);
  });
});

describe("failed:", () => {
  test("a port without a listener, a name that does not exist, and TLS where there is none", async () => {
    const unused = createServer();
    await new Promise<void>((resolve) => unused.listen(0, "127.0.0.1", resolve));
    const closed = (unused.address() as AddressInfo).port;
    await new Promise((resolve) => unused.close(resolve));
    const allow = ["*", `127.0.0.1:${closed}`, `127.0.0.1:${port}`];
    expect(await failureOf(`http://127.0.0.1:${closed}/`, { allow })).toEqual({
      kind: "connect",
      message: "host 127.0.0.1: it refused the connection",
    });
    expect(await failureOf("http://absent.invalid/", { allow })).toMatchObject({ kind: "name" });
    expect(await failureOf(`https://127.0.0.1:${port}/`, { allow })).toMatchObject({ kind: "tls" });
  });

  test("no response in time", async () => {
    expect(await failureOf(`${origin}/silent`, {}, { timeoutMs: 50 })).toMatchObject({ kind: "timeout" });
  });

  test("a body that stalls, or breaks off", async () => {
    using network = openNetwork();
    const stalls = await begin(network, `${origin}/stalls`);
    expect(await readAll(network, stalls.id)).toMatchObject({ body: "first", failure: { kind: "timeout" } });
    const breaks = await begin(network, `${origin}/breaks`);
    expect(await readAll(network, breaks.id)).toMatchObject({ failure: { kind: "protocol" } });
  });
});

describe("the end of an execution", () => {
  test("ends its requests: the host sees its connection closed", async () => {
    const closed = new Promise<void>((resolve) => {
      server.once("request", (request) => request.socket.once("close", resolve));
    });
    const network = openNetwork();
    const { id } = await begin(network, `${origin}/stalls`);
    network[Symbol.dispose]();
    await closed;
    expect((await call(network, "http-read", { id, timeoutMs: null }, never)).value).toMatchObject({
      failure: { kind: "protocol" },
    });
  });

  test("an interrupt answers code that waits", async () => {
    using network = openNetwork();
    const stop = new AbortController();
    const argument = { method: "GET", url: `${origin}/silent`, headers: [], body: "", timeoutMs: null };
    const { value: id } = await call(network, "http-start", argument, never);
    const waiting = call(network, "http-wait", { ids: [id], timeoutMs: null }, stop.signal);
    stop.abort();
    await expect(waiting).rejects.toThrow("the execution is being stopped");
  });

  test("waiting leaves nothing behind, however often and however many times it names one", async () => {
    using network = openNetwork();
    const argument = { method: "GET", url: `${origin}/silent`, headers: [], body: "", timeoutMs: null };
    const { value: id } = await call(network, "http-start", argument, never);
    const stop = new AbortController();
    const ids = Array.from({ length: 1000 }, () => id);
    const wait = () => call(network, "http-wait", { ids, timeoutMs: 0 }, stop.signal);
    await wait();
    const { attached } = await attachments(async () => {
      for (let i = 0; i < 200; i++) expect((await wait()).value).toEqual([]);
    });
    expect(getEventListeners(stop.signal, "abort")).toHaveLength(0);
    // A handful for each call, whatever it names, and none on a promise that outlives it.
    expect(attached / 200).toBeLessThan(100);
  });
});

test("what happened is told, without paths or bodies", async () => {
  const events: NetworkEvent[] = [];
  using network = openNetwork({}, (event) => events.push(event));
  await begin(network, `${origin}/echo?secret=1`, { method: "POST" });
  await begin(network, "https://evil.example:8443/?secret=1");
  await call(network, "http-check", { url: "http://other.example" }, never);
  expect(events).toEqual([
    { event: "network_request", method: "POST", host: "127.0.0.1", port, status: 200, error: null },
    {
      event: "network_refused",
      method: "GET",
      host: "evil.example",
      port: 8443,
      reason: "host evil.example:8443 is not in the server's NETWORK_ALLOW",
    },
    expect.objectContaining({ event: "network_refused", method: "CONNECT", host: "other.example", port: 80 }),
  ]);
});

test.each([
  ["http-start", { method: "GET" }],
  ["http-start", { method: "G T", url: "http://x/", headers: [], body: "", timeoutMs: null }],
  ["http-start", { method: "GET", url: "http://x/", headers: [["a"]], body: "", timeoutMs: null }],
  ["http-start", { method: "GET", url: "http://x/", headers: [], body: "", timeoutMs: "1" }],
  ["http-wait", null],
  ["http-read", { id: {} }],
  ["http-close", { ids: Array(2000).fill(1) }],
  ["http-nothing", {}],
])("%s with %j is refused", async (operation, argument) => {
  using network = openNetwork();
  await expect(call(network, operation, argument, never)).rejects.toThrow(
    /^(the argument is not of the right form|the sandbox does not offer "http-nothing" here)$/,
  );
});

test("one execution makes no more than its share of requests", async () => {
  using network = openNetwork({ allow: [] });
  const check = () => call(network, "http-check", { url: "http://x/" }, never);
  for (let i = 0; i < 2000; i++) await check();
  await expect(check()).rejects.toThrow("more than 1000 requests in one execution");
});

describe("names that are looked up", () => {
  /** Name servers that are silent until the question is cancelled. */
  function silentServers() {
    const open = new Set<() => void>();
    let cancelled = 0;
    const newResolver = () => {
      const own = new Set<() => void>();
      const ask = () =>
        new Promise<never>((_resolve, reject) => {
          const end = () => {
            open.delete(end);
            reject(Object.assign(new Error("cancelled"), { code: "ECANCELLED" }));
          };
          own.add(end);
          open.add(end);
        });
      const cancel = () => {
        cancelled++;
        for (const end of own) end();
      };
      return { resolve4: ask, resolve6: ask, cancel };
    };
    return { newResolver, open, cancelled: () => cancelled };
  }

  const names = (sources: Partial<NameSources>) => new Names({ hostsFile: async () => "", ...sources });
  const wide = {
    allow: ["*"],
    allowPrivate: true,
    timeoutMs: 10_000,
    maxRequestBytes: 10_000,
    maxResponseBytes: 1,
    maxOpen: 3,
  };

  test("are given up with their execution, and its places are free at once", async () => {
    const servers = silentServers();
    const egress = new Egress(wide, names(servers));
    for (let i = 0; i < 10; i++) {
      const network = egress.open(ownerOf(egress));
      for (let j = 0; j < 3; j++) {
        const url = `http://n${i}x${j}.slow.example/`;
        await call(network, "http-start", { method: "POST", url, headers: [], body: "AAAA", timeoutMs: null }, never);
      }
      await new Promise(setImmediate);
      // Each has two questions: for both families.
      expect(servers.open.size).toBe(6);
      network[Symbol.dispose]();
      await new Promise(setImmediate);
      expect(servers.open.size).toBe(0);
    }
    expect(servers.cancelled()).toBe(30);
  });

  test("are given up when a check is stopped", async () => {
    const servers = silentServers();
    const egress = new Egress(wide, names(servers));
    using network = egress.open(ownerOf(egress));
    const stop = new AbortController();
    const checked = call(network, "http-check", { url: "http://silent.example/" }, stop.signal);
    await new Promise(setImmediate);
    stop.abort();
    await expect(checked).rejects.toThrow("being stopped");
    await new Promise(setImmediate);
    expect(servers.open.size).toBe(0);
  });

  test("of this machine alone go to the system, one at a time, and once for all who ask", async () => {
    const asked: string[] = [];
    let underWay = 0;
    const release = Promise.withResolvers<void>();
    const found = names({
      hostsFile: async () => "10.0.0.7 box.internal other # comment.example\n",
      newResolver: () => {
        throw new Error("not asked");
      },
      system: async (host) => {
        asked.push(host);
        expect(++underWay).toBe(1);
        await release.promise;
        underWay--;
        return [{ address: "10.0.0.7", family: 4 }];
      },
    });
    const looked = [
      found.find("box.internal", false, never),
      found.find("box.internal", false, never),
      found.find("single", false, never),
      found.find("listed.example", true, never),
    ];
    const stop = new AbortController();
    const stopped = found.find("never-asked", false, stop.signal);
    await new Promise(setImmediate);
    stop.abort();
    await expect(stopped).rejects.toMatchObject({ kind: "timeout" });
    release.resolve();
    for (const addresses of looked) expect(await addresses).toEqual([{ address: "10.0.0.7", family: 4 }]);
    expect(asked.toSorted()).toEqual(["box.internal", "listed.example", "single"]);
  });

  test("all others go to the name servers: both families, and in words what is not there", async () => {
    const fail = (code: string) => async () => {
      throw Object.assign(new Error(code), { code });
    };
    const find = (resolve4: () => Promise<string[]>, resolve6: () => Promise<string[]>) =>
      names({ newResolver: () => ({ resolve4, resolve6, cancel: () => {} }) as never }).find("a.example", false, never);
    const six = async () => ["2001:db8::1"];
    expect(await find(async () => ["192.0.2.1"], six)).toEqual([
      { address: "192.0.2.1", family: 4 },
      { address: "2001:db8::1", family: 6 },
    ]);
    expect(await find(fail("ETIMEOUT"), six)).toEqual([{ address: "2001:db8::1", family: 6 }]);
    await expect(find(fail("ENODATA"), fail("ENOTFOUND"))).rejects.toThrow("host a.example: its name cannot be found");
    await expect(find(fail("ETIMEOUT"), fail("ESERVFAIL"))).rejects.toThrow("its name cannot be looked up now");
  });
});
