import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { pathOf, ROUTES, type Route } from "../support/routes.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const STREAMS = ROUTES.filter(({ replies }) => replies.includes("text/event-stream"));
const HEARTBEAT = ": \n\n";
const FOREVER = "import time\ntime.sleep(250)";

let server: TestServer;
let controller: AbortController;
beforeEach(async () => {
  controller = new AbortController();
  server = await startTestServer({ STREAM_HEARTBEAT_S: "1", POOL_SIZE: "1", QUEUE_LIMIT: "3" });
});
afterEach(async () => {
  controller.abort();
  await server.stop(0);
});

async function open(route: Pick<Route, "method" | "path">, body?: unknown) {
  const response = await fetch(server.url + pathOf(route as Route), {
    method: route.method,
    signal: controller.signal,
    ...(route.method === "POST" && {
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body ?? { code: "6 * 7" }),
    }),
  });
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const decoder = new TextDecoder();
  let text = "";
  return {
    response,
    /** All that came, once `found` is in it so often, or all is there. */
    async readUntil(found: string, count = 1): Promise<string> {
      while (text.split(found).length <= count) {
        const { done, value } = await reader.read();
        if (done) break;
        text += decoder.decode(value, { stream: true });
      }
      return text;
    },
  };
}

/** Keeps the only sandbox busy. */
async function occupy(session?: string): Promise<AbortController> {
  const busy = new AbortController();
  void fetch(`${server.url}/api/execute`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ code: FOREVER, timeout: 280_000, session }),
    signal: AbortSignal.any([busy.signal, controller.signal]),
  }).catch(() => {});
  await until(async () => (await server.get("/api/status")).body.pool.busy === 1);
  return busy;
}

describe("every event stream", () => {
  test("is one of these", () => {
    expect(STREAMS.map(({ path }) => path)).toEqual(["/api/execute-stream", "/api/dashboard/stats/stream"]);
  });

  test.for([...STREAMS])(
    "$path begins at once and has heartbeats, while the server is busy",
    { timeout: 60_000 },
    async (route) => {
      const busy = await occupy();
      const { response, readUntil } = await open(route);
      expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
      const text = await readUntil(HEARTBEAT, 3);
      for (const part of text.split("\n\n").slice(0, -1)) expect(part).toMatch(/^(?:: |data: .+)$/);
      if (route.path === "/api/execute-stream") {
        // Nothing of it has begun.
        expect(text.replaceAll(HEARTBEAT, "")).toBe("");
        busy.abort();
        const rest = await readUntil('"type":"complete"');
        expect(rest.replaceAll(HEARTBEAT, "")).toMatch(
          /^data: \{"type":"status","message":"Starting execution..."\}\n\n/,
        );
        expect(rest).toContain('"result":42');
      }
    },
  );
});

describe("/api/execute-stream", () => {
  const route = { method: "POST", path: "/api/execute-stream" };

  test("has heartbeats while code is silent", { timeout: 60_000 }, async () => {
    const { readUntil } = await open(route, { code: FOREVER, timeout: 280_000 });
    const text = await readUntil(HEARTBEAT, 3);
    expect(text.indexOf("Starting execution")).toBeLessThan(text.indexOf(HEARTBEAT));
  });

  test("has them while others have its session", { timeout: 60_000 }, async () => {
    await server.post("/api/sessions", { id: "shared" });
    const busy = await occupy("shared");
    const { response, readUntil } = await open(route, { code: "6 * 7", session: "shared" });
    expect(response.status).toBe(200);
    expect(await readUntil(HEARTBEAT, 2)).not.toContain("data:");
    busy.abort();
    expect(await readUntil('"type":"complete"')).toContain('"result":42');
  });

  test("still refuses with a status what has no room, no session or no code", { timeout: 60_000 }, async () => {
    await occupy();
    expect((await server.post("/api/execute-stream", { code: "1", session: "none" })).status).toBe(404);
    expect((await server.post("/api/execute-stream", {})).status).toBe(400);
    const waiting = [await open(route), await open(route), await open(route)];
    for (const { response } of waiting) expect(response.status).toBe(200);
    const full = await server.post("/api/execute-stream", { code: "1" });
    expect([full.status, full.body.code]).toEqual([429, expect.stringContaining("queue_full")]);
    expect(full.headers.get("retry-after")).toBe("1");
    // Before anything of it is looked at.
    expect((await server.post("/api/execute-stream", { code: "1", session: "none" })).status).toBe(429);
  });

  test("tells one that waits that the server stops", { timeout: 60_000 }, async () => {
    await occupy();
    const { readUntil } = await open(route);
    const stopping = server.stop(0);
    const text = await readUntil('"type":"complete"');
    expect(text).toContain('"code":"server_stopping"');
    await stopping;
  });
});
