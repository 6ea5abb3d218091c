/** One request that stands for several executions: each counts to RATE_LIMIT_MAX_REQUESTS. */
import { afterEach, beforeEach, expect, test } from "vitest";
import { JupyterSocket } from "../support/jupyter.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const MAX_REQUESTS = 4;
let server: TestServer;
beforeEach(async () => {
  server = await startTestServer({ RATE_LIMIT_MAX_REQUESTS: String(MAX_REQUESTS) });
});
afterEach(async () => await server.stop(0));

test("a cell of SandboxFusion's: those that ran are in the reply", async () => {
  const { status, body } = await server.post("/run_jupyter", {
    cells: ["x = 1", " ", "x + 1", "x + 2", "x + 3", "x + 4"],
  });
  expect(status).toBe(200);
  expect(body).toMatchObject({
    status: "Failed",
    message: expect.stringMatching(/too many requests/i),
    driver: { status: "Error", return_code: null },
  });
  const shown = body.cells.map(({ display }: { display: object[] }) => display[0] ?? null);
  // A cell of nothing is no execution.
  expect(shown).toEqual([null, null, { "text/plain": "2" }, { "text/plain": "3" }, { "text/plain": "4" }]);
  expect((await server.post("/run_jupyter", { cells: ["1"] })).status).toBe(429);
});

test("an expression of Jupyter's", async () => {
  const { id } = (await server.post("/api/kernels", {})).body;
  const socket = await JupyterSocket.open(server.url, `/api/kernels/${id}/channels`);
  // The kernel, its connection and the message are three of four.
  const { reply } = await socket.ask("execute_request", { code: "x = 1", user_expressions: { a: "x", b: "x" } });
  expect(reply).toMatchObject({
    status: "ok",
    user_expressions: { a: { status: "ok" }, b: { status: "error", ename: "rate_limited" } },
  });
});

test("a message of Jupyter's, also one that is refused", async () => {
  const { id } = (await server.post("/api/kernels", {})).body;
  const socket = await JupyterSocket.open(server.url, `/api/kernels/${id}/channels`);
  const refused = [];
  for (let n = 0; n < 3; n++) {
    const { reply } = await socket.ask("execute_request", { code: "1" }, { channel: "iopub" });
    refused.push(reply.ename);
  }
  // The kernel and its connection are two of four.
  expect(refused).toEqual(["RefusedRequestError", "RefusedRequestError", "rate_limited"]);
});

test("a fork of E2B's", async () => {
  const { sandboxID } = (await server.post("/sandboxes", { templateID: "base" })).body;
  const { status, body } = await server.post(`/sandboxes/${sandboxID}/fork`, { count: 5 });
  expect(status).toBe(201);
  expect(body.map((result: object) => Object.keys(result)[0])).toEqual([
    "sandbox",
    "sandbox",
    "sandbox",
    "error",
    "error",
  ]);
  expect(body[3].error).toMatchObject({ code: 429 });
});
