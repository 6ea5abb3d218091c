import { rm } from "node:fs/promises";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { createClient } from "../support/client.ts";
import { startServerProcess } from "../support/server-process.ts";

const ECHO = { name: "echo", parameters: { type: "object", properties: { value: {} }, required: ["value"] } };

test("kill -9 while a tool waits leaves the session at the state before, and its files", {
  timeout: 120_000,
}, async () => {
  const dataDir = temporaryFolder("tool-kills");
  const settings = { POOL_SIZE: "2", LOG_LEVEL: "info" };
  const first = await startServerProcess(dataDir, settings);
  try {
    const before = createClient(first.url);
    const { session } = (await before.post("/api/sessions", {})).body;
    const run = async (code: string, on = before) =>
      (await on.post("/api/execute", { code, session: session.id, tools: [ECHO] })).body;
    await run('x = 1; open("kept", "w").write("1")');
    const answered = await run("x = echo(2)");
    const results = [{ id: answered.toolCalls[0].id, result: 2 }];
    expect((await before.post(`/api/executions/${answered.continuation}`, { results })).body.status).toBe("completed");
    const waiting = await run('x = 3; open("kept", "w").write("3"); echo(x)');
    expect(waiting.status).toBe("tool_call_required");
    await first.kill();
    const second = await startServerProcess(dataDir, settings);
    try {
      const after = createClient(second.url);
      const lost = await after.post(`/api/executions/${waiting.continuation}`, { results: [] });
      expect(lost).toMatchObject({ status: 410, body: { code: "tool_wait_expired" } });
      expect(await run('[x, open("kept").read()]', after)).toMatchObject({ status: "completed", result: [2, "1"] });
    } finally {
      await second.kill();
    }
  } finally {
    await first.kill();
    await rm(dataDir, { recursive: true, force: true });
  }
});
