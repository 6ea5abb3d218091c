import http from "node:http";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readSecurityLog } from "../support/security-log.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

/** A connection of its own that is kept. */
function connection(server: TestServer) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const post = (body: string, headers: Record<string, string> = {}, path = "/api/execute") =>
    new Promise<{ status: number; headers: http.IncomingHttpHeaders; body: { code?: string; result?: unknown } }>(
      (resolve, reject) => {
        const request = http.request(
          server.url + path,
          { method: "POST", agent, headers: { "content-type": "application/json", ...headers } },
          async (response) => {
            let text = "";
            for await (const chunk of response) text += chunk;
            resolve({ status: response.statusCode as number, headers: response.headers, body: JSON.parse(text) });
          },
        );
        request.on("error", reject).end(body);
      },
    );
  return { post, end: () => agent.destroy() };
}

const WAIT = JSON.stringify({ code: "import time\nwhile True: time.sleep(0.05)", timeout: 60_000 });

describe("a queue that is full", () => {
  let server: TestServer;
  const held: ReturnType<typeof connection>[] = [];
  const hold = () => {
    const one = connection(server);
    held.push(one);
    // Ends with its connection.
    one.post(WAIT).catch(() => {});
  };
  const queued = async () => (await server.get("/api/status")).body.pool?.queued;
  beforeAll(async () => {
    server = await startTestServer({ POOL_SIZE: "1", QUEUE_LIMIT: "2" });
    for (let i = 0; i < 3; i++) hold();
    await until(async () => (await queued()) === 2);
  });
  afterAll(async () => await server.stop(0));

  test("refuses before anything of a request is read, with all headers that replies have", async () => {
    const one = connection(server);
    const { status, headers, body } = await one.post("{ this is no JSON", { "x-request-id": "early" });
    expect([status, body]).toEqual([429, expect.objectContaining({ success: false, code: "queue_full" })]);
    expect(Number(headers["retry-after"])).toBeGreaterThanOrEqual(1);
    const other = (await server.get("/health")).headers;
    for (const [name] of other)
      if (!/^(date|content-length|etag|connection|keep-alive|x-request-id)$/.test(name))
        expect(headers).toHaveProperty(name);
    expect(headers["x-request-id"]).toBe("early");
    // What else the server does goes on.
    expect((await server.get("/api/files")).status).toBe(200);
    one.end();
    for (const path of ["/api/execute-raw", "/api/execute-stream", "/API/Execute/"]) {
      const other = connection(server);
      expect((await other.post("{", {}, path)).body.code).toBe("queue_full");
      other.end();
    }
    expect((await readSecurityLog(server.config)).find(({ requestId }) => requestId === "early")).toMatchObject({
      event: "code_execution_error",
      details: { outcome: "rejected", path: "/api/execute" },
    });
    expect((await server.get("/metrics")).body).toMatch(
      /^pyodide_executions_total\{outcome="rejected",environment="unread"\} [1-9]/m,
    );
  });

  test("has a connection that comes again before its time wait for it, and serves it then", async () => {
    const one = connection(server);
    const refused = await one.post("{");
    expect(refused.body.code).toBe("queue_full");
    const early = one.post(JSON.stringify({ code: "6 * 7" }));
    // In its place there is room by then: had it been looked at at once, it would have been refused.
    for (const other of held.splice(0)) other.end();
    const { status, body } = await early;
    expect([status, body.result]).toEqual([200, 42]);
    one.end();
  });
});

describe("one principal that floods", () => {
  test("is refused by its share before its bodies are read, and another has its turn", async () => {
    const keys = "alice:alice-key-of-sixteen,bob:bob-key-of-sixteen-x,op:op-key-of-sixteen-xx:admin+stats";
    const server = await startTestServer({ POOL_SIZE: "2", QUEUE_LIMIT: "4", API_KEYS: keys });
    const as = (key: string) => ({ authorization: `Bearer ${key}` });
    const flood = Array.from({ length: 3 }, () => connection(server));
    try {
      // One runs, since another principal has a right to the other sandbox, and two wait.
      for (const one of flood) one.post(WAIT, as("alice-key-of-sixteen")).catch(() => {});
      await until(async () => (await server.get("/api/status", as("op-key-of-sixteen-xx"))).body.pool?.queued === 2);
      const late = connection(server);
      const refused = await late.post("{ no JSON", as("alice-key-of-sixteen"));
      expect([refused.status, refused.body.code]).toEqual([429, "principal_queue_full"]);
      const bob = connection(server);
      const { status, body } = await bob.post(JSON.stringify({ code: "1 + 1" }), as("bob-key-of-sixteen-x"));
      expect([status, body.result]).toEqual([200, 2]);
      const lines = await readSecurityLog(server.config);
      expect(lines.filter(({ details }) => details.outcome === "rejected")).toMatchObject([{ principal: "alice" }]);
      for (const one of [late, bob]) one.end();
    } finally {
      for (const one of flood) one.end();
      await server.stop(0);
    }
  });
});

describe("a client that says how long it waits", () => {
  test("is refused at once if its turn comes later, and waits if it does not", async () => {
    const server = await startTestServer({ POOL_SIZE: "1", QUEUE_LIMIT: "100" });
    const many = Array.from({ length: 30 }, () => connection(server));
    try {
      let running = true;
      const busy = Promise.all(
        many.map(async (one) => {
          while (running) await one.post(JSON.stringify({ code: "import time; time.sleep(0.1)" }));
        }),
      );
      const impatient = connection(server);
      await until(async () => {
        const { status, headers } = await impatient.post("{ no JSON", { prefer: "respond-async, wait=0" });
        // 400: the pace of the queue is not known yet, and so the body is read.
        if (status === 429) expect(Number(headers["retry-after"])).toBeGreaterThanOrEqual(1);
        else expect(status).toBe(400);
        return status === 429;
      });
      const patient = connection(server);
      expect((await patient.post(JSON.stringify({ code: "7" }), { prefer: "wait=600" })).body.result).toBe(7);
      running = false;
      await busy;
      for (const one of [impatient, patient]) one.end();
    } finally {
      for (const one of many) one.end();
      await server.stop(0);
    }
  });
});
