import { createServer } from "node:net";
import { Sandbox } from "@e2b/code-interpreter";
import { expect, test } from "vitest";
import { StartupError } from "../../src/shared/errors.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const freePort = async (): Promise<number> => {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address() as { port: number };
  await new Promise((resolve) => probe.close(resolve));
  return port;
};

/** Another program may be faster at the port. */
const start = async (): Promise<{ server: TestServer; port: number }> => {
  for (;;) {
    const port = await freePort();
    try {
      return { port, server: await startTestServer({ E2B_DEBUG_PORTS: String(port) }) };
    } catch (error) {
      if (!(error instanceof StartupError) || !error.message.includes("is taken")) throw error;
    }
  }
};

test("an SDK that debugs finds one sandbox, without a key", async () => {
  const { server, port } = await start();
  try {
    // The SDK's own ports are fixed; where it is told another address it does the rest as it does there.
    const connection = { debug: true, sandboxUrl: `http://127.0.0.1:${port}`, apiUrl: server.url };
    const sandbox = await Sandbox.create(connection);
    expect(sandbox.sandboxId).toBe("debug_sandbox_id");
    await sandbox.runCode("x = 1");
    await sandbox.files.write("f", "content");
    const other = await Sandbox.create(connection);
    expect((await other.runCode("x, open('f').read()")).text).toBe("(1, 'content')");
    expect(await sandbox.kill()).toBe(true);
    expect((await other.runCode("x")).text).toBe("1");
  } finally {
    await server.stop(0);
  }
});

test("there is no such sandbox where none was asked for, and no such port beside keys", async () => {
  const headers = { "e2b-sandbox-id": "debug_sandbox_id", "e2b-sandbox-port": "49983" };
  const server = await startTestServer();
  try {
    expect((await fetch(`${server.url}/health`, { headers })).status).toBe(502);
  } finally {
    await server.stop(0);
  }
  const refused = startTestServer({ E2B_DEBUG_PORTS: "49999,49983", API_KEYS: "alice:a-key-of-alice-for-e2b" });
  await expect(refused).rejects.toThrow("E2B_DEBUG_PORTS is for a server without keys");
  await expect(async () => await startTestServer({ E2B_DEBUG_PORTS: "none of these" })).rejects.toThrow("is no port");
});
