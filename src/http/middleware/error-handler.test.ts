import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import express from "express";
import { pino } from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ClientError } from "../../shared/errors.ts";
import { errorHandler, notFoundHandler } from "./error-handler.ts";

const SECRET = "ENOENT: no such file, open '/srv/secret/key.pem'";

let http: Server;
let url: string;
const logged: { level: number; msg: string; err: { message: string } }[] = [];

beforeAll(async () => {
  const app = express();
  app.get("/fault", () => {
    throw Object.assign(new Error(SECRET), { code: "ENOENT", path: "/srv/secret/key.pem" });
  });
  app.get("/rejection", async () => await Promise.reject(new TypeError(SECRET)));
  app.get("/text", () => {
    throw SECRET;
  });
  app.get("/undefined", (_request, _response, next) => next(new Error()));
  app.get("/disguised", () => {
    throw Object.assign(new Error(SECRET), { status: 418 });
  });
  app.get("/server-status", () => {
    throw Object.assign(new Error(SECRET), { status: 502, expose: true });
  });
  app.get("/client", () => {
    throw new ClientError("checkpoint_exists", "Not twice", { cause: new Error(SECRET) });
  });
  app.get("/busy", () => {
    throw new ClientError("queue_full", { retryAfterS: 7 });
  });
  app.get("/begun", (_request, response) => {
    response.write("half a reply");
    throw new Error(SECRET);
  });
  app.get("/name/:name", (_request, response) => {
    response.json({});
  });
  app.use(notFoundHandler);
  const destination = { write: (line: string) => void logged.push(JSON.parse(line)) };
  app.use(errorHandler(pino({}, destination)));
  http = createServer(app).listen(0, "127.0.0.1");
  await new Promise((resolve) => http.once("listening", resolve));
  url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
});
afterAll(() => void http.close());

test.each([
  ["/fault", 500, "Internal server error", "internal"],
  ["/rejection", 500, "Internal server error", "internal"],
  ["/text", 500, "Internal server error", "internal"],
  ["/undefined", 500, "Internal server error", "internal"],
  ["/server-status", 500, "Internal server error", "internal"],
  ["/disguised", 418, "Bad request", "bad_request"],
  ["/client", 409, "Not twice", "checkpoint_exists"],
  ["/busy", 429, "The server is busy. Try again later.", "queue_full"],
  ["/name/%ff", 400, "Bad request: the path is not UTF-8 in percent-encoding", "invalid_encoding"],
  ["/nothing", 404, "Endpoint not found", "endpoint_not_found"],
])("%s is answered with %i and no host path or stack", async (path, status, error, code) => {
  const before = logged.length;
  const response = await fetch(url + path);
  const text = await response.text();
  expect(response.status).toBe(status);
  expect(JSON.parse(text)).toEqual({ success: false, error, code, timestamp: expect.any(String) });
  expect(text).not.toMatch(/secret|\.ts|\bat /);
  expect(response.headers.get("retry-after")).toBe(status === 429 ? "7" : null);
  // Faults are logged with their cause, a client's mistakes are not faults.
  expect(logged.length - before).toBe(status === 500 ? 1 : 0);
});

test("a fault's cause is in the log", async () => {
  await fetch(`${url}/fault`);
  expect(logged.at(-1)).toMatchObject({ level: 50, msg: "request failed", err: { message: SECRET } });
});

test("a reply that has begun is ended", async () => {
  expect(await (await fetch(`${url}/begun`)).text()).toBe("half a reply");
});
