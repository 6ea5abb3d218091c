import { afterAll, beforeAll, expect, test } from "vitest";
import { py } from "../support/engine.ts";
import { readSecurityLog } from "../support/security-log.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ EXECUTION_CPU_MS: "1500" });
});
afterAll(() => server.stop(0));

/** Outcome → executions, as Prometheus reads them. */
async function counted(): Promise<Record<string, number>> {
  const text: string = (await server.get("/metrics")).body as unknown as string;
  const lines = text.matchAll(/^pyodide_executions_total\{outcome="(\w+)",environment="\w+"\} (\d+)$/gm);
  return Object.fromEntries(Array.from(lines, ([, outcome, count]) => [outcome, Number(count)]));
}

async function check(code: string, status: string, body: object = {}): Promise<void> {
  const outcome = status === "completed" ? "success" : status;
  const before = (await counted())[outcome] ?? 0;
  const reply = await server.post("/api/execute", { code, ...body });
  expect(reply.body).toMatchObject({ status, success: status === "completed" });
  expect((await counted())[outcome]).toBe(before + 1);
  expect((await readSecurityLog(server.config)).at(-1)).toMatchObject({ details: { outcome } });
}

test.each([
  ["completed", "1 + 1", {}],
  ["completed", "raise SystemExit(0)", {}],
  ["error", "1 / 0", {}],
  ["error", "raise SystemExit(3)", {}],
  ["error", "while", {}],
  ["error", "raise KeyboardInterrupt", {}],
  ["timeout", "while True: pass", { timeout: 100 }],
  ["timeout", "while True:\n  try:\n    while True: pass\n  except BaseException: pass", { timeout: 100 }],
  ["timeout", "class Cancelled(Exception): pass\ntry:\n  while True: pass\nfinally: raise Cancelled", { timeout: 100 }],
  ["sandbox_died", "import ctypes\nctypes.string_at(0x7fffffff, 10)", {}],
  ["cpu_limit", "while True: pass", { timeout: 20_000 }],
])("%s: %s", async (status, code, body) => {
  await check(code, status, body);
});

test.each(["Timeout", "SandboxDied", "FatalError", "Cancelled", "WorkspaceError", "SessionNotKept", "TimeoutError"])(
  "an exception class called %s is an error like any other",
  async (name) => {
    await check(`class ${name}(Exception): pass\nraise ${name}('x')`, "error");
    const { body } = await server.post("/api/execute", { code: `raise type('${name}', (BaseException,), {})('x')` });
    // The contract's own word stays what it was.
    expect(body).toMatchObject({ status: "error", errorInfo: { type: name, message: "x" } });
  },
);

test("an answer that user code makes up has no say in it", async () => {
  const forged = py`
    import sandbox_runner.execution as e, json
    info = {"type": "Timeout", "message": "x", "traceback": "", "line": None, "column": None}
    e._answer = lambda *a: json.dumps(info).encode() + bytes([10, 10]) + b"null"
  `;
  await check(forged, "error");
  await check(forged.replace('"message": "x"', '"status": "timeout", "message": "x"'), "sandbox_died");
});

test("an upload's own executions, and a session's, have one as well", async () => {
  const { session } = (await server.post("/api/sessions", {})).body as unknown as { session: { id: string } };
  await check("x = 1", "completed", { session: session.id });
  await check("class Timeout(Exception): pass\nraise Timeout", "error", { session: session.id });
  await check("while True: pass", "timeout", { session: session.id, timeout: 100 });
});
