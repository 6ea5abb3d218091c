import { afterAll, beforeAll, expect, test } from "vitest";
import { py } from "../support/engine.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ POOL_SIZE: "1" });
});
afterAll(async () => await server.stop(0));

/** Every public name of `traceback` and what calls it; null: it shows no frames of its own accord. `err` was raised by an earlier execution. */
const TRACEBACK: Readonly<Record<string, string | null>> = {
  extract_stack: "show(traceback.extract_stack())",
  extract_tb: "show(traceback.extract_tb(err.__traceback__))",
  format_exception: "show(traceback.format_exception(err))",
  format_exception_only: null,
  format_list: null,
  format_stack: "show(traceback.format_stack())",
  format_tb: "show(traceback.format_tb(err.__traceback__))",
  print_exc: "in_handler(traceback.print_exc)",
  format_exc: "in_handler(lambda: show(traceback.format_exc()))",
  print_exception: "traceback.print_exception(err)",
  print_last: "sys.last_exc = err; traceback.print_last()",
  print_stack: "traceback.print_stack()",
  print_tb: "traceback.print_tb(err.__traceback__)",
  clear_frames: null,
  FrameSummary: null,
  StackSummary: "show(traceback.StackSummary.extract(traceback.walk_stack(None)))",
  TracebackException: "show([*traceback.TracebackException.from_exception(err).format()])",
  walk_stack: "show([*traceback.walk_stack(None)])",
  walk_tb: "show([*traceback.walk_tb(err.__traceback__)])",
  print_list: null,
};
/** Every function of `inspect` that has to do with frames. */
const INSPECT: Readonly<Record<string, string | null>> = {
  currentframe: null,
  getframeinfo: null,
  getinnerframes: "show(inspect.getinnerframes(err.__traceback__))",
  getouterframes: "show(inspect.getouterframes(inspect.currentframe()))",
  isframe: null,
  istraceback: null,
  stack: "show(inspect.stack())",
  trace: "in_handler(lambda: show(inspect.trace()))",
};
const OTHERS = [
  "logging.warning('x', stack_info=True)",
  "in_handler(lambda: logging.exception('x'))",
  "logging.error('x', exc_info=err)",
  "logging.warning('x', stacklevel=2)",
  "logging.warning('x', stacklevel=99)",
  "warnings.warn('x', stacklevel=2)",
  "warnings.warn('x', stacklevel=99)",
  "sys.excepthook(type(err), err, err.__traceback__)",
];
const CALLS = [...Object.values(TRACEBACK), ...Object.values(INSPECT), ...OTHERS].filter((call) => call !== null);

test("every function of traceback and inspect that shows frames is called here", async () => {
  const code = py`
    import inspect, traceback
    shows = lambda name: any(word in name for word in ("frame", "stack", "trace")) and not name.startswith("_")
    functions = [name for name, value in vars(inspect).items() if inspect.isfunction(value) and shows(name)]
    [sorted(traceback.__all__), sorted(functions)]`;
  const { body } = await server.post("/api/execute", { code });
  expect(body.result).toEqual([Object.keys(TRACEBACK).sort(), Object.keys(INSPECT).sort()]);
});

const PLACES: Readonly<Record<string, (call: string) => string>> = {
  "at the top": (call) => call,
  "in a function": (call) => `def f():\n    ${call}\nf()`,
  "in a coroutine": (call) => `async def f():\n    ${call}\nawait f()`,
  "when the program ends": (call) => `import atexit\n@atexit.register\ndef f():\n    ${call}`,
};
const PREPARE = py`
  import inspect, logging, sys, traceback, warnings
  logging.basicConfig(format="%(pathname)s: %(message)s", force=True)
  show = print
  def in_handler(call):
      try:
          raise err
      except ValueError:
          call()
`;

test.for(["err = ValueError(1)\nraise err", "import asyncio\nerr = ValueError(1)\nawait asyncio.sleep(0)\nraise err"])(
  "no function shows frames of the runner: %s",
  async (raising) => {
    const { body: made } = await server.post("/api/sessions", {});
    const session = made.session.id;
    const run = async (code: string) => (await server.post("/api/execute", { code, session })).body;
    await run("1");
    expect(await run(raising)).toMatchObject({ error: "1" });
    expect(await run(PREPARE)).toMatchObject({ success: true });
    for (const [place, code] of Object.entries(PLACES)) {
      for (const call of CALLS) {
        const { success, stdout, stderr } = await run(code(call));
        expect([place, call, success]).toEqual([place, call, true]);
        expect([place, call, `${stdout}${stderr}`]).not.toEqual([
          place,
          call,
          expect.stringMatching(/sandbox_runner|base_events/),
        ]);
      }
    }
  },
);

test("what they show is the program's own, whole", async () => {
  const code = py`
    import inspect, traceback
    def f(): return g()
    def g(): return [entry.function for entry in inspect.stack()], [entry.name for entry in traceback.extract_stack()]
    f()`;
  const { body } = await server.post("/api/execute", { code });
  expect(body.result).toEqual([
    ["g", "f", "<module>"],
    ["<module>", "f", "g"],
  ]);
});

test("when the program ends, an error that has ended it is shown as it was", async () => {
  const code =
    "import atexit, traceback\nerr = ValueError(1)\natexit.register(traceback.print_exception, err)\nraise err";
  const { body } = await server.post("/api/execute", { code });
  const shown =
    'Traceback (most recent call last):\n  File "<exec>", line 4, in <module>\n    raise err\nValueError: 1\n';
  expect(body.stderr).toBe(shown + shown);
});
