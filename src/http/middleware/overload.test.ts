import type { IncomingMessage, ServerResponse } from "node:http";
import type { Request, Response } from "express";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ClientError } from "../../shared/errors.ts";
import { holdBackEarly, refuseOverload } from "./overload.ts";

/** Of the server's own protocol. */
const RESPONSE = { locals: {} } as Response;
const PROXY = "192.0.2.1";
const refusal = new ClientError("queue_full", { retryAfterS: 1 });

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** A connection whose execution has just been refused. @returns what it sends next, and what has been looked at since. */
function refused({ retryAfterS = 1, address = "198.51.100.7" } = {}) {
  const socket = { remoteAddress: address };
  const error = new ClientError("queue_full", { retryAfterS });
  const { ofAll } = refuseOverload({
    admission: () => ({ refusal: () => error, refusalOf: () => null }),
    onRefused: () => {},
  });
  const next = vi.fn();
  ofAll({ method: "POST", path: "/api/execute", headers: {}, socket } as unknown as Request, RESPONSE, next);
  expect(next).toHaveBeenCalledExactlyOnceWith(error);
  const seen: string[] = [];
  const listener = holdBackEarly(
    ({ url }) => seen.push(String(url)),
    (proxy) => proxy === PROXY,
  );
  const send = (url: string, method = "POST", destroyed = false) =>
    listener({ url, method, socket } as unknown as IncomingMessage, { destroyed } as unknown as ServerResponse & never);
  /** Another execution. */
  const execute = (name: string, destroyed = false) => send(`/api/execute?${name}`, "POST", destroyed);
  return { send, execute, seen: () => seen.map((url) => url.replace("/api/execute?", "")) };
}

test("what comes before its time is looked at when that has come, once", () => {
  const { execute, seen } = refused();
  execute("early");
  vi.advanceTimersByTime(999);
  expect(seen()).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(seen()).toEqual(["early"]);
  execute("later");
  expect(seen()).toEqual(["early", "later"]);
});

test("no connection is held back for longer than two seconds, nor after its time", () => {
  const long = refused({ retryAfterS: 30 });
  long.execute("early");
  vi.advanceTimersByTime(2000);
  expect(long.seen()).toEqual(["early"]);
  const polite = refused();
  vi.advanceTimersByTime(1000);
  polite.execute("in time");
  expect(polite.seen()).toEqual(["in time"]);
});

test.each([
  ["GET", "/api/execute"],
  ["POST", "/api/tools/stubs"],
  ["POST", "/api/sessions"],
  ["POST", "/api/files?next=/api/execute"],
])("%s %s takes no place of those, and is not held back", (method, url) => {
  const { send, seen } = refused();
  send(url, method);
  expect(seen()).toEqual([url]);
});

test.each(["/API/Execute/", "/py/api/execute-raw", "//api//execute-stream?a=1", "http://a.example/api/execute"])(
  "%s is an execution",
  (url) => {
    const { send, seen } = refused();
    send(url);
    expect(seen()).toEqual([]);
  },
);

test("what takes no sandbox leaves the next execution held back", () => {
  const { send, execute, seen } = refused();
  send("/api/tools/stubs");
  execute("early");
  expect(seen()).toEqual(["/api/tools/stubs"]);
});

test("neither a proxy's connection is held back, nor one that has gone looked at", () => {
  const proxied = refused({ address: PROXY });
  proxied.execute("of another client");
  expect(proxied.seen()).toEqual(["of another client"]);
  const gone = refused();
  gone.execute("gone", true);
  vi.advanceTimersByTime(5000);
  expect(gone.seen()).toEqual([]);
});

test.each([
  ["wait=5", 5000],
  ["respond-async, wait=10", 10_000],
  ['handling=lenient; wait="3"', 3000],
  ["Wait = 0", 0],
  ["wait=soon", Number.POSITIVE_INFINITY],
  ["await=5", Number.POSITIVE_INFINITY],
  [undefined, Number.POSITIVE_INFINITY],
])("a client that prefers %s waits so long", (prefer, patienceMs) => {
  const asked = vi.fn(() => null);
  const { ofAll } = refuseOverload({
    admission: () => ({ refusal: asked, refusalOf: () => refusal }),
    onRefused: () => {},
  });
  const next = vi.fn();
  ofAll({ method: "POST", path: "/api/execute", headers: { prefer } } as unknown as Request, RESPONSE, next);
  expect(asked).toHaveBeenCalledExactlyOnceWith(patienceMs);
  expect(next).toHaveBeenCalledExactlyOnceWith();
});

test("of a foreign protocol's requests those are executions that it says are", () => {
  const asked = vi.fn(() => null);
  const { ofAll } = refuseOverload({
    admission: () => ({ refusal: asked, refusalOf: () => refusal }),
    onRefused: () => {},
  });
  const response = {
    locals: { protocol: { executes: ({ path }: Request) => path === "/run" } },
  } as unknown as Response;
  for (const path of ["/run", "/api/execute"]) {
    ofAll({ method: "POST", path, headers: {} } as unknown as Request, response, vi.fn());
  }
  expect(asked).toHaveBeenCalledTimes(1);
});
