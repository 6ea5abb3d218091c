/** A program that is stopped for its time on the clock, or of the processor, is told of alike: it took too long. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

const code = "while True: pass";

describe.each([
  ["of the processor", { EXECUTION_CPU_MS: "300" }],
  ["on the clock", { EXECUTION_TIMEOUT_MS: "300" }],
])("%s", (_clock, settings) => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer({ POOL_SIZE: "2", ...settings });
  });
  afterAll(async () => await server.stop(0));

  test.each([
    [
      "/librechat/v1/exec",
      { lang: "py", code },
      { message: "Time limit exceeded", status: "TO", code: null, signal: "SIGKILL" },
    ],
    [
      "/librechat/v1/exec/programmatic",
      { code, tools: [{ name: "a" }] },
      { status: "error", error: "Time limit exceeded" },
    ],
    [
      "/api/v2/execute",
      { language: "python", version: "*", files: [{ content: code }] },
      { run: { status: "TO", message: expect.stringMatching(/^Time limit exceeded/), code: null } },
    ],
    [
      "/run_code",
      { language: "python", code, run_timeout: 1 },
      { status: "Failed", run_result: { status: "TimeLimitExceeded", return_code: null } },
    ],
  ])("%s", async (path, body, expected) => {
    expect((await server.post(path, body)).body).toMatchObject(expected);
  });
});
