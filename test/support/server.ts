import { rm } from "node:fs/promises";
import { pino } from "pino";
import { type RunningServer, startServer } from "../../src/compose/server.ts";
import type { Config } from "../../src/shared/settings.ts";
import { createClient, type TestClient } from "./client.ts";
import { testConfig } from "./config.ts";

export type { Reply } from "./client.ts";

export interface TestServer extends RunningServer, TestClient {
  readonly config: Config;
}

/**
 * A real server on a free port of the loopback interface, ready.
 *
 * @param settings as environment variables. With a DATA_DIR of the test's own, that folder is there after `stop`.
 */
export async function startTestServer(settings: Record<string, string> = {}): Promise<TestServer> {
  const config = testConfig(settings);
  const server = await startServer(config, pino({ level: "silent" }));
  try {
    await server.ready;
  } catch (error) {
    await server.stop(0);
    throw error;
  }
  return {
    ...server,
    ...createClient(server.url),
    config,
    stop: async (graceMs) => {
      await server.stop(graceMs);
      if (settings.DATA_DIR === undefined) await rm(config.DATA_DIR, { recursive: true, force: true });
    },
  };
}
