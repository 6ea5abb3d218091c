import { onTestFinished } from "vitest";
import type { TestServer } from "./server.ts";
import { until } from "./until.ts";

/** Is aborted when the test ends, if not before: the next test begins when no sandbox is busy any more. */
export function abortWithTest(server: TestServer): AbortController {
  const controller = new AbortController();
  onTestFinished(async () => {
    controller.abort();
    await until(() => server.executor.pool.status().busy === 0);
  });
  return controller;
}
