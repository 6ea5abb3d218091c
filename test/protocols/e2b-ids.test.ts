import { NotFoundError, type Sandbox } from "@e2b/code-interpreter";
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "../support/until.ts";
import { ALICE, type E2bServer, startE2bServer } from "./e2b-sdk.ts";

let server: E2bServer;

beforeAll(async () => {
  server = await startE2bServer();
});
afterAll(async () => await server?.stop(0));

const ofSandbox = (id: string, port: number) => ({
  "e2b-sandbox-id": encodeURIComponent(id),
  "e2b-sandbox-port": String(port),
});

const onControlPlane = [
  ["GET", "", undefined],
  ["DELETE", "", undefined],
  ["GET", "/metrics", undefined],
  ["POST", "/timeout", { timeout: 60 }],
  ["POST", "/refreshes", { duration: 60 }],
  ["POST", "/connect", { timeout: 60 }],
  ["POST", "/resume", { timeout: 60 }],
  ["POST", "/pause", {}],
  ["POST", "/fork", { timeout: 60, count: 1 }],
  ["POST", "/snapshots", {}],
  ["PUT", "/network", {}],
] as const;
const inSandbox = [
  ["POST", "/execute", 49999, { code: "1" }],
  ["GET", "/contexts", 49999, undefined],
  ["POST", "/contexts", 49999, {}],
  ["POST", "/contexts/default/restart", 49999, {}],
  ["DELETE", "/contexts/default", 49999, undefined],
  ["GET", "/health", 49983, undefined],
  ["GET", "/files?path=a", 49983, undefined],
  ["GET", "/metrics", 49983, undefined],
  ["GET", "/envs", 49983, undefined],
  ...["Stat", "ListDir", "MakeDir", "Remove"].map(
    (name) => ["POST", `/filesystem.Filesystem/${name}`, 49983, { path: "a" }] as const,
  ),
  ["POST", "/filesystem.Filesystem/Move", 49983, { source: "a", destination: "b" }],
  ["POST", "/filesystem.Filesystem/CreateWatcher", 49983, { path: "." }],
  ["POST", "/filesystem.Filesystem/GetWatcherEvents", 49983, { watcherId: "a" }],
  ["POST", "/process.Process/List", 49983, {}],
  ["POST", "/process.Process/SendSignal", 49983, { process: { pid: 1 }, signal: "SIGNAL_SIGKILL" }],
] as const;

test("ids that are unknown, or of sandboxes that have ended, are not there for any request", async () => {
  const ended = await server.sandbox();
  await ended.kill();
  const expired = await server.sandbox({ timeoutMs: 1000 });
  await until(async () => (await server.ask(`/sandboxes/${expired.sandboxId}`)).status === 404);
  const session = (await server.post("/api/sessions", {}, { "x-api-key": ALICE })).body.session.id;
  for (const id of ["unknown", ended.sandboxId, expired.sandboxId, session, "debug_sandbox_id", "../x", "a\0"]) {
    for (const [method, path, body] of onControlPlane) {
      const { status, text } = await server.ask(`/sandboxes/${encodeURIComponent(id)}${path}`, {
        method,
        ...(body && { body }),
      });
      expect([method, id, path, status, text]).toEqual([method, id, path, 404, expect.stringContaining('"code":404')]);
    }
    for (const [method, path, port, body] of inSandbox) {
      const { status } = await server.ask(path, { method, headers: ofSandbox(id, port), ...(body && { body }) });
      expect([method, id, path, status]).toEqual([method, id, path, 502]);
    }
  }
});

test("another sandbox's context, watcher or command are not there", async () => {
  const [first, second] = [await server.sandbox(), await server.sandbox()];
  const context = await first.createCodeContext();
  await expect(second.runCode("1", { context })).rejects.toThrow(NotFoundError);
  await expect(second.restartCodeContext(context)).rejects.toThrow(NotFoundError);
  await expect(second.removeCodeContext(context)).rejects.toThrow(NotFoundError);
  const command = await first.commands.run("sleep 60", { background: true });
  expect(await second.commands.kill(command.pid)).toBe(false);
  expect(await first.commands.kill(command.pid)).toBe(true);
  const headers = (sandbox: Sandbox) => ofSandbox(sandbox.sandboxId, 49983);
  const made = await server.ask("/filesystem.Filesystem/CreateWatcher", {
    method: "POST",
    body: { path: "/tmp" },
    headers: headers(first),
  });
  const asked = { method: "POST", body: { watcherId: (made.body as { watcherId: string }).watcherId } };
  const path = "/filesystem.Filesystem/GetWatcherEvents";
  expect((await server.ask(path, { ...asked, headers: headers(second) })).status).toBe(404);
  expect((await server.ask(path, { ...asked, headers: headers(first) })).status).toBe(200);
});
