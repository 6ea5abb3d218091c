import { execFile } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isInstalled } from "../support/installed.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const EXAMPLES = fileURLToPath(new URL("../../examples/", import.meta.url));
const KEY = "k".repeat(20);

/** What the scripted model says, turn by turn: a mistake, a call that fails, one that works, and the answer. */
const SCRIPT = [
  '```python\ntemprature("Oslo")\n```',
  '```python\ntry: temperature("Paris")\nexcept Exception as e: print(type(e).__name__)\n```',
  '```python\nmax(["Oslo", "Lisbon"], key=temperature)\n```',
  "Lisbon is warmer.",
];

interface Asked {
  readonly messages: readonly { readonly role: string; readonly content: string }[];
}

const asked: Asked[] = [];
const model = createServer(async (request, response) => {
  asked.push(JSON.parse(await text(request)));
  const content = SCRIPT[asked.length - 1] ?? "The script is over.";
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ choices: [{ message: { role: "assistant", content } }] }));
});
let server: TestServer;

beforeAll(async () => {
  server = await startTestServer({ POOL_SIZE: "2", API_KEYS: `agent:${KEY}` });
  model.listen(0, "127.0.0.1");
  await once(model, "listening");
});
afterAll(async () => {
  model.close();
  await server.stop(0);
});

describe.each([
  ["agent.py", "python3"],
  ["agent.ts", process.execPath],
])("examples/%s", (file, program) => {
  test.skipIf(!isInstalled(program, "--version"))("answers by code that calls its tools", async () => {
    asked.length = 0;
    const { port } = model.address() as AddressInfo;
    const { stdout } = await promisify(execFile)(program, [EXAMPLES + file, "Which city is warmer, Oslo or Lisbon?"], {
      env: {
        PATH: process.env.PATH,
        MODEL_URL: `http://127.0.0.1:${port}/v1/chat/completions`,
        PYODIDE_EXPRESS_URL: server.url,
        PYODIDE_EXPRESS_KEY: KEY,
      },
    });
    expect(stdout).toBe("Lisbon is warmer.\n");
    const messages = asked.at(-1)?.messages ?? [];
    expect(messages[0]?.content).toContain("def temperature(city: str) -> float:");
    const results = messages
      .filter(({ role }) => role === "user")
      .slice(1)
      .map(({ content }) => JSON.parse(content));
    expect(results).toEqual([
      { status: "error", stdout: "", result: null, error: expect.stringContaining("is it 'temperature'?") },
      { status: "completed", stdout: "ToolError\n", result: null, error: null },
      { status: "completed", stdout: "", result: "Lisbon", error: null },
    ]);
  });
});
