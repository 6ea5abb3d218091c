import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { py } from "../support/engine.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

/** What a timeout or an interrupt finds: whatever Python waits or computes for, it ends as `time.sleep` does. */
let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ POOL_SIZE: "2" });
});
afterAll(async () => {
  await server.stop(0);
});

const MAIN = py`
  import asyncio
  kept = "kept"
  async def main():
      try:
          await asyncio.sleep(30)
      finally:
          print("cleanup")
  `;
const COMPUTES = MAIN.replace("await asyncio.sleep(30)", "while True: pass");
const YIELDS = MAIN.replace("await asyncio.sleep(30)", "while True: await asyncio.sleep(0)");

interface Row {
  readonly name: string;
  readonly code: string;
  /** The line where it is interrupted; null: the code has caught it. */
  readonly line: number | null;
  readonly stdout?: string;
}

const ROWS: readonly Row[] = [
  { name: "time.sleep", code: "import time\nkept = 'kept'\ntry: time.sleep(30)\nfinally: print('cleanup')", line: 3 },
  ...[
    { what: "that waits", source: MAIN },
    { what: "that computes", source: COMPUTES },
    { what: "that gives way all the time", source: YIELDS },
  ].flatMap(({ what, source }): Row[] => [
    { name: `asyncio.run of a coroutine ${what}`, code: `${source}asyncio.run(main())`, line: 5 },
    { name: `await of a coroutine ${what}`, code: `${source}await main()`, line: 5 },
    { name: `Runner.run of a coroutine ${what}`, code: `${source}with asyncio.Runner() as r: r.run(main())`, line: 5 },
    {
      name: `run_until_complete of a coroutine ${what}`,
      code: `${source}asyncio.new_event_loop().run_until_complete(main())`,
      line: 5,
    },
    {
      name: `asyncio.run, beside an await, of a coroutine ${what}`,
      code: `${source}await asyncio.sleep(0); asyncio.run(main())`,
      line: 5,
    },
  ]),
  { name: "a task that is awaited", code: `${MAIN}t = asyncio.create_task(main())\nawait t`, line: 5 },
  { name: "gather", code: `${MAIN}await asyncio.gather(main(), asyncio.sleep(20))`, line: 5 },
  { name: "wait_for", code: `${MAIN}await asyncio.wait_for(main(), 20)`, line: 5 },
  { name: "asyncio.timeout", code: `${MAIN}async with asyncio.timeout(20): await main()`, line: 5 },
  {
    name: "shield",
    code: `${MAIN}async def outer(): await asyncio.wait_for(asyncio.shield(main()), 20)\nasyncio.run(outer())`,
    line: 8,
  },
  {
    name: "TaskGroup",
    code: `${MAIN}async with asyncio.TaskGroup() as group:\n    group.create_task(main())\n    await asyncio.sleep(20)`,
    line: 10,
  },
  {
    name: "one task computes while others wait",
    code: `${MAIN}async def spin():\n    while True: pass\nawait asyncio.gather(main(), spin())`,
    line: 9,
  },
  {
    name: "an async generator",
    code: py`
      import asyncio
      kept = "kept"
      async def numbers():
          try:
              yield 1
              await asyncio.sleep(30)
          finally:
              print("cleanup")
      async for n in numbers(): pass`,
    line: 6,
  },
  {
    name: "a lock, a queue, an event",
    code: py`
      import asyncio
      kept = "kept"
      async def main():
          try:
              asyncio.get_running_loop().call_later(30, print)
              await asyncio.gather(asyncio.Queue().get(), asyncio.Event().wait())
          finally:
              print("cleanup")
      asyncio.run(main())`,
    line: 6,
  },
  {
    name: "a callback that computes",
    code: py`
      import asyncio
      kept = "kept"
      def spin():
          while True: pass
      loop = asyncio.new_event_loop()
      loop.call_soon(spin)
      try: loop.run_forever()
      finally: print("cleanup")`,
    line: 4,
  },
  {
    name: "run_forever that waits",
    code: py`
      import asyncio
      kept = "kept"
      loop = asyncio.new_event_loop()
      loop.call_later(30, print)
      try: loop.run_forever()
      finally: print("cleanup")`,
    line: 5,
  },
  {
    name: "code that catches the interrupt, as a program does",
    code: `${MAIN}try: asyncio.run(main())\nexcept KeyboardInterrupt: pass`,
    line: null,
  },
  {
    name: "code that catches the cancellation and goes on",
    code: `${MAIN.replace("finally:", "except BaseException as e:")}asyncio.run(main())`,
    line: null,
  },
  {
    name: "a __del__ that computes",
    code: py`
      kept = "kept"
      class A:
          def __del__(self):
              while True: pass
      a = A()
      try:
          del a
          while True: pass
      finally: print("cleanup")`,
    line: 8,
  },
  {
    name: "a callback of a weak reference",
    code: py`
      import weakref
      kept = "kept"
      def spin(_):
          while True: pass
      class A: pass
      a = A()
      r = weakref.ref(a, spin)
      try:
          del a
          while True: pass
      finally: print("cleanup")`,
    line: 10,
  },
  {
    name: "something else in the place of time.sleep",
    code: `${MAIN}import time\ntime.sleep = lambda seconds: None\nasyncio.run(main())`,
    line: 5,
  },
];

/** Has V8 compile what an interrupt runs, which a busy machine could take longer for than the quarter of a second that there is. */
const WARM_UP = py`
  import asyncio
  async def main():
    await asyncio.wait_for(asyncio.sleep(0), 1)
    raise asyncio.CancelledError
  try: asyncio.run(main())
  except BaseException as error: raise error`;

/**
 * Runs code, which prints before it waits, in a session of its own until it times out; again, with more time, where the time was up before the code had begun to wait,
 * or the sandbox had to be killed all the same: what is tested here is what an interrupt does, not how fast this machine is.
 */
async function timedOut(code: string) {
  for (let attempt = 1; ; attempt++) {
    const session = (await server.post("/api/sessions", {})).body.session.id;
    await server.post("/api/execute", { code: WARM_UP, session });
    const { body } = await server.post("/api/execute", { code, session, timeout: 500 * attempt });
    if (attempt === 5 || (body.stdout !== "" && !body.session.restored)) return { session, body };
  }
}

describe("a timeout", () => {
  test.each(ROWS.map((row) => [row.name, row] as const))("%s", async (_, { code, line }) => {
    const { session, body } = await timedOut(code);
    expect(body).toMatchObject({ success: false, stdout: "cleanup\n", errorInfo: { type: "Timeout", line } });
    if (line !== null) {
      expect(body.errorInfo.traceback).toContain(`File "<exec 2>", line ${line}, in `);
      expect(body.errorInfo.traceback).toMatch(/\nKeyboardInterrupt\n$/);
    }
    expect(body.errorInfo.traceback).not.toContain("asyncio/");
    // Nothing was killed, so the session has what the execution has changed.
    expect(body.session.restored).toBeUndefined();
    const after = await server.post("/api/execute", { code: "import asyncio\nawait asyncio.sleep(0, kept)", session });
    expect(after.body).toMatchObject({ success: true, result: "kept", stdout: "", stderr: "" });
  });
});

describe("an interrupt by a client", () => {
  test.each([
    ["asyncio.run", `${MAIN}asyncio.run(main())`],
    ["await", `${MAIN}await main()`],
    ["await of what computes", `${COMPUTES}await main()`],
  ])("ends %s", async (_, code) => {
    const session = (await server.post("/api/sessions", {})).body.session.id;
    await server.post("/api/execute", { code: WARM_UP, session });
    const running = server.post("/api/execute", { code, session });
    let interrupted = false;
    while (!interrupted) {
      // Once it computes or waits; before that an interrupt would end what comes first.
      await new Promise((resolve) => setTimeout(resolve, 300));
      interrupted = (await server.post(`/api/sessions/${session}/interrupt`, {})).body.interrupted;
    }
    const { body } = await running;
    expect(body).toMatchObject({ success: false, stdout: "cleanup\n" });
    expect((await server.post("/api/execute", { code: "kept", session })).body.result).toBe("kept");
  });
});

test("a task that an interrupt leaves goes on at the session's next await", async () => {
  const code = py`
    import asyncio
    async def background():
        await asyncio.sleep(0.01)
        return "done"
    task = asyncio.create_task(background())
    print("begun")
    while True: pass`;
  const { session } = await timedOut(code);
  expect((await server.post("/api/execute", { code: "await task", session })).body.result).toBe("done");
});

test("a KeyboardInterrupt of a __del__'s own is ignored there, as Python does", async () => {
  const code = "class A:\n  def __del__(self): raise KeyboardInterrupt\na = A()\ndel a\nsum(i for i in range(10**5))";
  const { body } = await server.post("/api/execute", { code });
  expect(body).toMatchObject({ success: true, result: 4_999_950_000 });
  expect(body.stderr).toContain("Exception ignored while calling deallocator");
});
