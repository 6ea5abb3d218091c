/** The engine alone behind the shortest handler there is: no workspace, no log, no statistics, no checks. */
import type { AddressInfo } from "node:net";
import express from "express";
import { pino } from "pino";
import { startRuntime } from "../../src/compose/runtime.ts";
import { loadConfig } from "../../src/shared/settings.ts";

const { executor, environments, stop } = await startRuntime(loadConfig(), pino({ level: "silent" }));
const app = express();
app.post("/api/execute", express.json(), async (request, response) => {
  const { code } = request.body as { code: string };
  const environment = environments.defaultName;
  response.json(await executor.execute({ code, environment, timeoutMs: 30_000, principal: "bench" }));
});
const server = app.listen(0, "127.0.0.1", () => {
  console.log(`Ready on http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
process.once("SIGTERM", () => server.close(() => void stop(0)).closeAllConnections());
