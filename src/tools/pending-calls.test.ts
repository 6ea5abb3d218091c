import { describe, expect, test } from "vitest";
import { JsonText } from "../shared/json/json-text.ts";
import { toolSet } from "./definitions.ts";
import type { EndedCall, ToolEvent } from "./events.ts";
import { HeldBytes } from "./held-bytes.ts";
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

describe("what the server holds for calls", () => {
  const large = JSON.stringify({ x: "x".repeat(10 * MIB - 100) });
  const held = new HeldBytes();
  const begin = (principal: string, more: Partial<PendingCallsOptions> = {}) => {
    const shown: ToolEvent[] = [];
    const client = { send: (event: ToolEvent) => shown.push(event) };
    const pending = new PendingCalls(options({ principal, client, held: held.share(principal), ...more }));
    const calls = pending.calls(async () => []);
    const start = async (input = large) => (await calls["tool-start"].answer({ tool: "t", input }, SIGNAL)).value;
    /** @returns how many were taken before one was refused, and what that said. */
    const fill = async () => {
      for (let count = 0; ; count++) {
        const value = await start();
        if (typeof value !== "number") return { count, value };
      }
    };
    return { pending, calls, start, fill, shown };
  };
  const tooMuch = { kind: "error", message: expect.stringContaining("hold too much") };

  test("arguments of open calls: 64 MiB of an execution, 128 MiB of a principal; an answer makes room", async () => {
    const ended: EndedCall[] = [];
    const [one, two, three] = [begin("a", { onEnded: (call) => ended.push(call) }), begin("a"), begin("a")];
    const other = begin("b");
    expect([await one.fill(), await two.fill(), await three.fill(), await other.fill()]).toEqual([
      { count: 6, value: tooMuch },
      { count: 6, value: tooMuch },
      { count: 0, value: tooMuch },
      { count: 6, value: tooMuch },
    ]);
    expect(ended).toMatchObject([{ outcome: "refused", inputBytes: large.length }]);
    one.pending.answer([{ id: one.shown[0]?.id ?? "", result: JsonText.of(1) }]);
    expect(await three.start("{}")).toEqual(expect.any(Number));
    expect(await one.fill()).toEqual({ count: 1, value: tooMuch });
    for (const { pending } of [one, two, three, other]) pending[Symbol.dispose]();
    expect(held.principals).toEqual([]);
  });

  test("a prompt counts as well", async () => {
    const { pending, calls } = begin("a", { interactive: true });
    const ask = async () =>
      (await calls["tool-start"].answer({ prompt: "?".repeat(20 * MIB), password: false }, SIGNAL)).value;
    expect([await ask(), await ask(), await ask()]).toEqual(Array(3).fill(expect.any(Number)));
    expect(await ask()).toEqual(tooMuch);
    pending[Symbol.dispose]();
    expect(held.principals).toEqual([]);
  });

  test("answers: of all a principal's executions 128 MiB, and what one took it holds no longer", async () => {
    const all = [begin("a"), begin("a"), begin("a")];
    const ids: number[] = [];
    for (const { start } of all) for (let i = 0; i < 6; i++) ids.push((await start("{}")) as number);
    const answer = ({ pending, shown }: (typeof all)[0], index: number) =>
      pending.answer([{ id: shown[index]?.id ?? "", result: JsonText.of("x".repeat(10 * MIB - 100)) }]);
    let taken = 0;
    for (const one of all) {
      for (let i = 0; i < 6; i++) {
        try {
          answer(one, i);
          taken++;
        } catch (error) {
          expect(error).toMatchObject({ code: "too_much_held" });
        }
      }
    }
    expect(taken).toBe(12);
    await all[0]?.calls["tool-wait"].answer({ ids: ids.slice(0, 6), requests: [], timeoutMs: null }, SIGNAL);
    answer(all[2] as (typeof all)[0], 5);
    for (const { pending } of all) pending[Symbol.dispose]();
    expect(held.principals).toEqual([]);
  });

  test("answers of this server's own tools count too: without room the call fails", async () => {
    const tools = toolSet([{ name: "t" }]);
    const result = JsonText.of("x".repeat(10 * MIB - 100));
    const { pending, calls, start } = begin("a", { inner: { tools, call: async () => ({ result }) } });
    const kinds: string[] = [];
    const ids: number[] = [];
    for (let i = 0; i < 8; i++) ids.push((await start("{}")) as number);
    while (ids.length > 0) {
      const { value } = await calls["tool-wait"].answer({ ids, requests: [], timeoutMs: null }, SIGNAL);
      for (const { id, kind } of value.calls) {
        kinds.push(kind);
        ids.splice(ids.indexOf(id), 1);
      }
    }
    expect(kinds).toEqual([...Array(6).fill("result"), "error", "error"]);
    pending[Symbol.dispose]();
    expect(held.principals).toEqual([]);
  });
});

test.each(["\n", "\r", " ", "\t"])(
  "arguments with %j between their tokens reach no client: it would show where lines end",
  async (space) => {
    const shown: ToolEvent[] = [];
    using pending = new PendingCalls(options({ client: { send: (event) => shown.push(event) } }));
    const { "tool-start": start } = pending.calls(async () => []);
    const tokens = ["{", '"x"', ":", "[", "1", ",", '{"type":"result"}', "]", "}"];
    for (let at = 0; at <= tokens.length; at++) {
      const input = tokens.toSpliced(at, 0, space).join("");
      expect((await start.answer({ tool: "t", input }, SIGNAL)).value).toMatchObject({
        kind: "error",
        message: expect.stringContaining("no compact JSON"),
      });
    }
    expect(shown).toEqual([]);
    // Inside of a text it is escaped.
    await start.answer({ tool: "t", input: JSON.stringify({ x: space }) }, SIGNAL);
    expect(shown).toHaveLength(1);
  },
);
