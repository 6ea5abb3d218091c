import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { afterEach, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { SETTINGS } from "../../src/shared/settings.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { createClient, type TestClient } from "../support/client.ts";
import { type ServerProcess, startServerProcess } from "../support/server-process.ts";

let server: (ServerProcess & TestClient) | null = null;
afterEach(async () => {
  await server?.kill();
  server = null;
});

async function start(settings: Record<string, string>, dataDir = temporaryFolder("stopping")) {
  const started = await startServerProcess(dataDir, settings);
  const exit = once(started.child, "exit").then(([code]) => code as number | null);
  server = { ...started, ...createClient(started.url) };
  return { ...server, dataDir, exit };
}

const SLOW = "import time\nprint('begun', flush=True)\ntime.sleep(60)";

/** Resolves when user code has printed; `rest` is all that comes after. */
async function startStream(url: string, code = SLOW): Promise<{ rest: Promise<string> }> {
  const response = await fetch(`${url}/api/execute-stream`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ code }),
  });
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  let text = "";
  const decoder = new TextDecoder();
  while (!text.includes("begun")) text += decoder.decode((await reader.read()).value, { stream: true });
  const rest = (async () => {
    for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read())
      text += decoder.decode(chunk.value, { stream: true });
    return text;
  })();
  return { rest };
}

describe("a server that is told to stop", () => {
  test.each(["SIGTERM", "SIGINT", "SIGHUP"] as const)(
    "by %s lets what runs end, tells what it cut off, and exits with 0",
    async (signal) => {
      const { url, child, exit, post, get } = await start({ STOP_GRACE_S: "2", POOL_SIZE: "2" });
      const cut = await startStream(url);
      const quick = await startStream(url, "print('begun', flush=True)\nimport time\ntime.sleep(1)\n'ended'");
      const waiting = post("/api/execute", { code: SLOW });
      await expect.poll(async () => (await get("/api/status")).body.pool.queued).toBe(1);
      child.kill(signal);
      expect(await quick.rest).toContain('"result":"ended"');
      const refused = await waiting;
      expect(refused).toMatchObject({ status: 503, body: { code: "server_stopping" } });
      expect(refused.headers.get("connection")).toBe("close");
      const text = await cut.rest;
      expect(text).toContain('"code":"server_stopping"');
      expect(text).toContain('"type":"complete"');
      expect(await exit).toBe(0);
    },
  );

  test("a second time ends at once", async () => {
    const { url, child, exit } = await start({ STOP_GRACE_S: "60" });
    const stream = await startStream(url);
    const rest = stream.rest.catch(() => "cut off");
    child.kill("SIGTERM");
    // Once it takes no connections it has begun to stop.
    await expect
      .poll(() =>
        fetch(`${url}/ready`).then(
          () => "answers",
          () => "refuses",
        ),
      )
      .toBe("refuses");
    child.kill("SIGINT");
    expect(await exit).toBe(130);
    await rest;
  });

  test("does not wait for clients that have an hour to come back", async () => {
    const { child, exit, post } = await start({ STOP_GRACE_S: "0", POOL_SIZE: "3" });
    const body = { code: "t()\n'over'", tools: [{ name: "t" }], toolTimeout: 3_600_000 };
    const [over, waiting] = [(await post("/api/execute", body)).body, (await post("/api/execute", body)).body];
    expect(waiting.status).toBe("tool_call_required");
    // Its last reply waits for the client.
    const results = [{ id: over.toolCalls[0].id, result: 1 }];
    expect(await post(`/api/executions/${over.continuation}/results`, { results })).toMatchObject({ status: 202 });
    child.kill("SIGTERM");
    expect(await exit).toBe(0);
  });

  test("leaves a session as it was before the execution that was cut off", async () => {
    const { child, exit, dataDir, ...client } = await start({ STOP_GRACE_S: "0" });
    await client.post("/api/sessions", { id: "kept" });
    await client.post("/api/execute", { code: "x = 1", session: "kept" });
    const cut = client.post("/api/execute", { code: `x = 2\n${SLOW}`, session: "kept" });
    await expect.poll(async () => (await client.get("/api/sessions/kept")).body.session.state).toBe("running");
    child.kill("SIGTERM");
    expect(await cut).toMatchObject({ status: 503, body: { code: "server_stopping" } });
    expect(await exit).toBe(0);
    const again = await start({}, dataDir);
    expect((await again.post("/api/execute", { code: "x", session: "kept" })).body.result).toBe(1);
  });
});

test("deployments wait for longer than a server takes to stop", async () => {
  const grace = Number(SETTINGS.STOP_GRACE_S.fallback);
  const read = async (name: string) => await readFile(new URL(`../../deploy/${name}`, import.meta.url), "utf8");
  const compose = parse(await read("compose.yaml"), { merge: true });
  for (const name of ["server-a", "server-b"]) {
    expect(Number.parseInt(compose.services[name].stop_grace_period, 10)).toBeGreaterThan(grace + 5);
  }
  const documents = (await read("kubernetes/server.yaml")).split(/^---$/m).map((text) => parse(text));
  const { spec } = documents.find(({ kind } = {}) => kind === "Deployment").spec.template;
  const preStopS = Number(spec.containers[0].lifecycle.preStop.sleep.seconds);
  expect(spec.terminationGracePeriodSeconds).toBeGreaterThan(preStopS + grace + 5);
});
