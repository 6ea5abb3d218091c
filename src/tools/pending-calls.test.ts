import { expect, test } from "vitest";
import { JsonText } from "../shared/json/json-text.ts";
import { toolSet } from "./definitions.ts";
import type { ToolEvent } from "./events.ts";
import { PendingCalls, type PendingCallsOptions } from "./pending-calls.ts";
import { ToolExecutions } from "./tool-executions.ts";

const SIGNAL = new AbortController().signal;
const MIB = 1024 * 1024;

const options = (more: Partial<PendingCallsOptions> = {}): PendingCallsOptions => ({
  principal: "tester",
  tools: toolSet([{ name: "t" }]),
  interactive: false,
  mode: "sync",
  check: false,
  client: { send: () => {} },
  callTimeoutMs: 1e9,
  maxWaitMs: 1e9,
  maxCalls: 100,
  ...more,
});

test("answers that the code does not take are bounded, and taking them makes room", async () => {
  const shown: ToolEvent[] = [];
  using pending = new PendingCalls(options({ client: { send: (event) => shown.push(event) } }));
  const calls = pending.calls(async () => []);
  const start = async () => (await calls["tool-start"].answer({ tool: "t", input: "{}" }, SIGNAL)).value as number;
  const ids = [];
  for (let i = 0; i < 8; i++) ids.push(await start());
  const large = JsonText.of("x".repeat(10 * MIB - 100));
  const answer = (index: number) => pending.answer([{ id: shown[index]?.id ?? "", result: large }]);
  for (let i = 0; i < 6; i++) answer(i);
  expect(() => answer(6)).toThrow(expect.objectContaining({ code: "too_much_held", status: 429 }));
  // It was not taken: the call is open still.
  expect(pending.open).toHaveLength(2);
  const taken = await calls["tool-wait"].answer({ ids, requests: [], timeoutMs: null }, SIGNAL);
  expect(taken.value.calls).toHaveLength(1);
  answer(6);
});

test("a client that is away has its calls wait for it; one that is back finds those too late that it does not answer", async () => {
  let isThere = false;
  const shown: ToolEvent[] = [];
  const client = { send: (event: ToolEvent) => shown.push(event), isAttended: () => isThere };
  using pending = new PendingCalls(options({ client, callTimeoutMs: 1 }));
  const calls = pending.calls(async () => []);
  const start = async () => (await calls["tool-start"].answer({ tool: "t", input: "{}" }, SIGNAL)).value as number;
  const [first, second] = [await start(), await start()];
  // Another timer of the same time, set later, fires later.
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(pending.open).toHaveLength(2);
  isThere = true;
  pending.answer([{ id: shown[0]?.id ?? "", result: JsonText.of("back") }]);
  pending.settleOverdue();
  expect(pending.open).toEqual([]);
  const { value } = await calls["tool-wait"].answer({ ids: [first, second], requests: [], timeoutMs: null }, SIGNAL);
  expect(value.calls.map(({ kind }) => kind)).toEqual(["result", "timeout"]);
});

test("a wait for answers and for responses at once loses neither", async () => {
  const shown: ToolEvent[] = [];
  using pending = new PendingCalls(options({ client: { send: (event) => shown.push(event) } }));
  const begun = { id: 7, failure: { kind: "connect", message: "no" } };
  const response = Promise.withResolvers<void>();
  const calls = pending.calls(async (_ids, signal) => {
    signal.addEventListener("abort", () => response.resolve());
    await response.promise;
    return [begun];
  });
  const { value: id } = await calls["tool-start"].answer({ tool: "t", input: "{}" }, SIGNAL);
  const waiting = calls["tool-wait"].answer({ ids: [id as number], requests: [7], timeoutMs: null }, SIGNAL);
  // Both at the same moment.
  pending.answer([{ id: shown[0]?.id ?? "", result: JsonText.of(1) }]);
  response.resolve();
  expect((await waiting).value).toMatchObject({ calls: [{ id, kind: "result" }], requests: [begun] });
});

test("ten thousand executions that would wait: all but those that may are refused, and each is forgotten when it is over", () => {
  const executions = new ToolExecutions({
    server: "name-of-12-c",
    fleet: null,
    maxExecutions: 50,
    maxOfPrincipal: 20,
    maxWaitMs: 1000,
    maxCalls: 10,
  });
  const begin = (principal: string) => executions.begin({ ...options(), principal });
  for (let round = 0; round < 2; round++) {
    const begun: ReturnType<typeof begin>[] = [];
    const codes = new Set<string>();
    for (let i = 0; i < 10_000; i++) {
      try {
        begun.push(begin(`principal-${i % 5}`));
      } catch (error) {
        codes.add((error as { code: string }).code);
      }
    }
    expect(begun).toHaveLength(50);
    expect([...codes]).toEqual(["too_many_tool_executions"]);
    expect(Map.groupBy(begun, ({ principal }) => principal).size).toBe(5);
    for (const execution of begun) execution[Symbol.dispose]();
    expect(() => executions.get("principal-0", begun[0]?.id ?? "")).toThrow("Execution not found");
  }
});
