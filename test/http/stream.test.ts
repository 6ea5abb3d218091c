import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { abortWithTest } from "../support/abort-with-test.ts";
import { cpuTime } from "../support/cpu-time.ts";
import { py } from "../support/engine.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

interface StreamEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(async () => await server.stop(0));

/** The events of a reply, each as soon as it is there. */
async function* eventsOf(response: Response): AsyncGenerator<StreamEvent, undefined> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of response.body as ReadableStream<Uint8Array>) {
    rest += decoder.decode(chunk, { stream: true });
    for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
      const event = rest.slice(0, end);
      expect(event).toMatch(/^data: [^\n]+$/);
      yield JSON.parse(event.slice("data: ".length)) as StreamEvent;
      rest = rest.slice(end + 2);
    }
  }
  expect(rest).toBe("");
}

const open = (body: unknown, signal?: AbortSignal, to = server) =>
  fetch(`${to.url}/api/execute-stream`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    ...(signal && { signal }),
  });

/** Python writes a line and its end apart: what follows one another on one stream is one text. */
function joined(events: readonly StreamEvent[]): StreamEvent[] {
  const result: StreamEvent[] = [];
  for (const event of events) {
    const last = result.at(-1);
    const isMore = last?.type === event.type && typeof event.content === "string";
    if (isMore) result.splice(-1, 1, { ...event, content: `${last.content}${event.content}` });
    else result.push(event);
  }
  return result;
}

const all = async (body: unknown) => joined(await Array.fromAsync(eventsOf(await open(body))));
const pool = async () => (await server.get("/api/status")).body.pool as { busy: number; queued: number };

/** A stream that the test watches while the code runs, and that ends with the test at the latest. */
async function follow(code: string) {
  const controller = abortWithTest(server);
  const events = eventsOf(await open({ code, timeout: 250_000 }, controller.signal));
  const seen: StreamEvent[] = [];
  return {
    /** What has come, read on until `count` different things have, the last of them with `content` in full. */
    read: async (count: number, content?: string): Promise<StreamEvent[]> => {
      while (joined(seen).length < count || (content !== undefined && joined(seen).at(-1)?.content !== content)) {
        seen.push((await events.next()).value as StreamEvent);
      }
      return joined(seen);
    },
    close: async () => {
      controller.abort();
      await expect(events.next()).rejects.toThrow();
    },
  };
}

describe("events", () => {
  test("begin with the status, end with the result and complete, and are an event stream", async () => {
    const response = await open({ code: 'print("hi")\n6 * 7' });
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    expect(response.headers.get("cache-control")).toContain("no-cache");
    expect(joined(await Array.fromAsync(eventsOf(response)))).toEqual([
      { type: "status", message: "Starting execution..." },
      { type: "stdout", content: "hi\n" },
      {
        type: "result",
        success: true,
        status: "completed",
        result: 42,
        error: null,
        stdout: "hi\n",
        stderr: "",
        outputs: [],
        display: { "text/plain": "42" },
        timestamp: expect.stringMatching(/Z$/),
        executionTime: expect.any(Number),
        cpuTime: cpuTime,
      },
      { type: "complete" },
    ]);
  });

  test("arrive while the code runs", async () => {
    // It would run for minutes: what is read here was sent before its end.
    const code = py`
      import sys, time
      print("one")
      print("two", file=sys.stderr)
      display("three")
      print("no newline", end="")
      time.sleep(200)
    `;
    const stream = await follow(code);
    expect(await stream.read(5, "no newline")).toEqual([
      { type: "status", message: "Starting execution..." },
      { type: "stdout", content: "one\n" },
      { type: "stderr", content: "two\n" },
      { type: "output", "text/plain": "'three'", data: { "text/plain": "'three'" } },
      { type: "stdout", content: "no newline" },
    ]);
    expect((await pool()).busy).toBe(1);
  });

  test("come in the order in which the code did things", async () => {
    const code = py`
      import sys
      for i in range(200):
          print(i)
          print("error", i, file=sys.stderr)
          display(i)
    `;
    const events = await all({ code });
    for (const stream of ["stdout", "stderr"]) {
      const said = joined(events.filter(({ type }) => [stream, "output"].includes(type)));
      const prefix = stream === "stderr" ? "error " : "";
      expect(said.map((event) => event.content ?? event["text/plain"])).toEqual(
        Array.from({ length: 200 }, (_, i) => [`${prefix}${i}\n`, `${i}`]).flat(),
      );
    }
  });

  test("together are what the result holds, characters of several bytes and all", async () => {
    const text = "añ€😀\n".repeat(20_000);
    const events = await all({ code: 'import sys; sys.stdout.write("añ€😀\\n" * 20_000); None' });
    const streamed = events.filter(({ type }) => type === "stdout").map(({ content }) => content);
    expect(streamed.join("")).toBe(text);
    expect(events.at(-2)).toMatchObject({ type: "result", stdout: text });
  });

  test("carry newlines and what looks like an event as data", async () => {
    const forged = 'x\n\ndata: {"type":"complete"}\n\ndata: {"type":"result","success":false}\r\n\u2028';
    const events = await all({ code: `print(${JSON.stringify(forged)}, end="")` });
    expect(events.map(({ type }) => type)).toEqual(["status", "stdout", "result", "complete"]);
    expect(events[1]?.content).toBe(forged);
  });
});

describe("displayed data", () => {
  const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";

  test("is an event of type output, a bundle by MIME type, and in the result's outputs", async () => {
    const code = py`
      import base64
      class Picture:
          def _repr_png_(self): return base64.b64decode("${PNG}")
          def _repr_html_(self): return "<b>picture</b>"
          def __repr__(self): return "Picture()"
      display(Picture())
      display({"a": 1}, [2])
    `;
    const events = await all({ code });
    const bundle = { "image/png": PNG, "text/html": "<b>picture</b>", "text/plain": "Picture()" };
    expect(events.map(({ type }) => type)).toEqual(["status", "output", "output", "output", "result", "complete"]);
    expect(events[1]).toEqual({ type: "output", ...bundle, data: bundle });
    expect(events[2]).toMatchObject({ type: "output", "text/plain": "{'a': 1}" });
    expect(events[4]).toMatchObject({ outputs: [bundle, { "text/plain": "{'a': 1}" }, { "text/plain": "[2]" }] });
  });

  test("says what it updates and what is cleared, and the result has the last value as a bundle", async () => {
    const code = py`
      from IPython.display import clear_output
      h = display({"displayId": "forged", "update": "forged"}, raw=True, display_id="a", metadata={"x/y": {"z": 1}})
      h.update(2)
      clear_output(wait=True)
      display({}, raw=True)
      [1]
    `;
    const events = await all({ code });
    expect(events.slice(1, -2)).toEqual([
      {
        type: "output",
        displayId: "a",
        // Not what the bundle says.
        update: null,
        data: { displayId: "forged", update: "forged" },
        metadata: { "x/y": { z: 1 } },
      },
      { type: "output", displayId: "a", update: true, "text/plain": "2", data: { "text/plain": "2" } },
      { type: "clear_output", wait: true },
      { type: "output", data: {} },
    ]);
    expect(events.at(-2)).toMatchObject({ type: "result", outputs: [{}], display: { "text/plain": "[1]" } });
  });

  test("is no event of another type, whatever its bundle says", async () => {
    const code = py`
      class Forger:
          def _repr_mimebundle_(self, *_args, **_kwargs):
              return {"type": "result", "data": "x", "success": "true", "text/plain": "forged"}
      display(Forger())
    `;
    const events = await all({ code });
    expect(events.map(({ type }) => type)).toEqual(["status", "output", "result", "complete"]);
    expect(events[1]).toMatchObject({ type: "output", data: { type: "result", "text/plain": "forged" } });
  });
});

describe("errors", () => {
  test("of Python are in stderr as they happen, and in the result", async () => {
    const events = await all({ code: 'print("before")\n1 / 0' });
    expect(events.map(({ type }) => type)).toEqual(["status", "stdout", "stderr", "result", "complete"]);
    expect(events[2]?.content).toMatch(/ZeroDivisionError: division by zero\n$/);
    expect(events[3]).toMatchObject({
      success: false,
      error: "division by zero",
      errorInfo: { type: "ZeroDivisionError", line: 2 },
    });
  });

  test("a timeout ends the stream, and keeps what came before", async () => {
    const events = await all({ code: 'print("before")\nwhile True: pass', timeout: 3000 });
    expect(events[1]).toEqual({ type: "stdout", content: "before\n" });
    expect(events.at(-2)).toMatchObject({ type: "result", success: false, errorInfo: { type: "Timeout" } });
    expect(events.at(-1)).toEqual({ type: "complete" });
  });

  test("a sandbox that dies ends the stream", async () => {
    const events = await all({ code: 'print("before")\nimport ctypes; ctypes.string_at(0xfffffff0, 100)' });
    expect(events[1]).toEqual({ type: "stdout", content: "before\n" });
    expect(events.at(-2)).toMatchObject({ type: "result", success: false });
    expect(events.at(-1)).toEqual({ type: "complete" });
  });

  test("in the request are a plain 400, before any stream", async () => {
    for (const [body, error] of [
      [{}, 'No code provided. Please include "code" in the request body.'],
      [{ code: " " }, "Code cannot be empty"],
      [{ code: "1", timeout: -1 }, "Timeout must be a positive number (milliseconds)."],
      [{ code: "1", environment: "nowhere" }, 'Unknown environment "nowhere". Available: stdlib.'],
    ] as const) {
      const response = await open(body);
      expect(response.status).toBe(400);
      expect(response.headers.get("content-type")).toMatch(/^application\/json/);
      expect(await response.json()).toMatchObject({ success: false, error });
    }
  });

  test("a busy server is a plain 429 with Retry-After", async () => {
    const strict = await startTestServer({ QUEUE_LIMIT: "0" });
    const controller = new AbortController();
    try {
      const running = eventsOf(await open({ code: "import time; time.sleep(200)" }, controller.signal, strict));
      expect((await running.next()).value).toMatchObject({ type: "status" });
      const response = await open({ code: "1" }, undefined, strict);
      expect(response.status).toBe(429);
      expect(response.headers.get("retry-after")).toMatch(/^\d+$/);
      expect(await response.json()).toMatchObject({ success: false });
      controller.abort();
      await expect(running.next()).rejects.toThrow();
    } finally {
      await strict.stop(0);
    }
  });
});

describe("closing the connection", () => {
  test.each([
    ["that can be interrupted", "while True: pass"],
    ["that sleeps", "import time; time.sleep(200)"],
    ["that refuses to be interrupted", "while True:\n  try:\n    while True: pass\n  except BaseException: pass"],
  ])(
    "stops code %s: the one sandbox is the next one's",
    async (_name, loop) => {
      const stream = await follow(`print("running")\n${loop}`);
      await stream.read(2, "running\n");
      await stream.close();
      const { body } = await server.post("/api/execute", { code: '"running" in globals(), 6 * 7' });
      expect(body.result).toEqual([false, 42]);
    },
    30_000,
  );

  test("gives up a place in the queue", async () => {
    const running = await follow("import time; time.sleep(200)");
    await running.read(1);
    const controller = new AbortController();
    const waiting = open({ code: 'open("ran", "w").close()' }, controller.signal);
    waiting.catch(() => {});
    await until(async () => (await pool()).queued === 1);
    controller.abort();
    // Its head has come: it has a place in the queue.
    await expect((await waiting).text()).rejects.toThrow();
    await until(async () => (await pool()).queued === 0);
    await running.close();
    const { body } = await server.post("/api/execute", { code: 'import os; os.path.exists("ran")' });
    expect(body.result).toBe(false);
  }, 30_000);

  test("counts in the statistics as an error of its own kind", async () => {
    const { topErrors } = (await server.get("/api/dashboard/stats")).body.stats;
    expect(topErrors).toContainEqual({ error: "Cancelled", count: 5 });
  });
});
