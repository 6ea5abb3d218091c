import { expect } from "vitest";
import type { TestClient } from "./client.ts";
import type { TestServer } from "./server.ts";
import { until } from "./until.ts";

/** Posts what runs without end, goes away while it runs, and waits until no sandbox is busy any more. */
export async function leaveWhileItRuns(
  server: TestServer,
  client: TestClient,
  path: string,
  body: object,
): Promise<void> {
  const gone = new AbortController();
  const headers = { "content-type": "application/json" };
  const asked = client
    .request(path, { method: "POST", headers, body: JSON.stringify(body), signal: gone.signal })
    .catch(() => "gone");
  await until(() => server.executor.pool.status().busy === 1);
  gone.abort();
  expect(await asked).toBe("gone");
  await until(() => server.executor.pool.status().busy === 0);
}
