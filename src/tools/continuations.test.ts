import { afterEach, describe, expect, test, vi } from "vitest";
import { JsonText } from "../shared/json/json-text.ts";
import { Continuations } from "./continuations.ts";
import { toolSet } from "./definitions.ts";
import type { Reply, Step } from "./events.ts";
import { ToolExecutions } from "./tool-executions.ts";

const SIGNAL = new AbortController().signal;
const MIB = 1024 * 1024;

afterEach(() => void vi.restoreAllMocks());

const executions = new ToolExecutions({
  server: "name-of-12-c",
  fleet: null,
  maxExecutions: 5,
  maxOfPrincipal: 5,
  maxWaitMs: 1e9,
  maxCalls: 100,
});
const continuations = new Continuations(executions);

/** An execution that has told its client that it waits for answers to some calls. */
async function begin(principal: string, inputs: readonly string[] = ["{}"], timeoutMs: number | null = null) {
  const steps: Step[] = [];
  const continuation = continuations.begin({
    principal,
    leaseMs: 1e9,
    render: (step) => {
      steps.push(step);
      return { status: 200, body: Buffer.alloc(0) };
    },
  });
  const execution = executions.begin({
    principal,
    tools: toolSet([{ name: "t" }]),
    interactive: false,
    mode: "async",
    check: false,
    client: continuation,
    callTimeoutMs: 1e9,
  });
  const last = Promise.withResolvers<Reply>();
  continuation.start(execution, () => last.promise);
  continuations.add(continuation);
  const calls = execution.calls.calls(async () => []);
  const ids: number[] = [];
  for (const input of inputs)
    ids.push((await calls["tool-start"].answer({ tool: "t", input }, SIGNAL)).value as number);
  const wait = async () => {
    const { value } = await calls["tool-wait"].answer({ ids, requests: [], timeoutMs }, SIGNAL);
    for (const { id } of value.calls) ids.splice(ids.indexOf(id), 1);
  };
  const waited = wait();
  await continuations.next(continuation, []);
  /** Ends it while no request of it is there: its answer has come another way. */
  const end = async (body: Uint8Array) => {
    for (const { id } of execution.calls.open)
      await executions.answer(principal, execution.id, [{ id, result: JsonText.of(1) }]);
    await waited;
    last.resolve({ status: 200, body });
    await vi.waitFor(() => expect(continuation.isOver).toBe(true));
  };
  return { id: execution.id, principal, continuation, steps, wait, waited, end };
}

describe("last replies that no client has taken", () => {
  test("are bounded for each principal, wherever their executions end: the oldest go", async () => {
    const body = Buffer.alloc(10 * MIB);
    const bob = await begin("bob");
    await bob.end(body);
    const alice = [];
    for (let i = 0; i < 20; i++) {
      const one = await begin("alice");
      await one.end(body);
      alice.push(one);
    }
    const codes = [];
    for (const { principal, id } of [bob, ...alice]) {
      try {
        const { reply, delivered } = await continuations.proceed(principal, id, []);
        codes.push(reply.body.length);
        delivered();
      } catch (error) {
        codes.push((error as { code: string }).code);
      }
    }
    const kept = (count: number) => Array(count).fill(10 * MIB);
    expect(codes).toEqual([...kept(1), ...Array(8).fill("execution_not_found"), ...kept(12)]);
  });

  test("count when they are empty, and one alone stays whatever it has", async () => {
    const small = await begin("alice");
    await small.end(Buffer.alloc(0));
    const large = await begin("alice");
    await large.end(Buffer.alloc(129 * MIB));
    await expect(continuations.proceed("alice", small.id, [])).rejects.toMatchObject({ code: "execution_not_found" });
    const { reply, delivered } = await continuations.proceed("alice", large.id, []);
    expect(reply.body.length).toBe(129 * MIB);
    delivered();
    // What was taken counts no longer.
    const next = [await begin("alice"), await begin("alice")];
    for (const one of next) await one.end(Buffer.alloc(60 * MIB));
    for (const { id } of next) (await continuations.proceed("alice", id, [])).delivered();
  });
});

test("a reply has calls with 16 MiB of arguments; the others come with the next", async () => {
  const input = JSON.stringify({ x: "x".repeat(5 * MIB) });
  const { continuation, steps, wait, waited, end } = await begin("alice", Array(5).fill(input));
  expect(steps.map(({ calls }) => calls.length)).toEqual([3]);
  const results = () => (steps.at(-1)?.calls ?? []).map(({ id }) => ({ id, result: JsonText.of(1) }));
  const next = continuations.next(continuation, results());
  await waited;
  const rest = wait();
  await next;
  expect(steps.map(({ calls }) => calls.length)).toEqual([3, 2]);
  await end(Buffer.alloc(0));
  await rest;
});

test("no timer of an execution that waits keeps a stopped server alive", async () => {
  const timers = vi.spyOn(globalThis, "setTimeout");
  const { end } = await begin("alice", ["{}", "{}"], 1e9);
  const set = timers.mock.results.map(({ value }) => (value as NodeJS.Timeout).hasRef());
  // Two calls, the wait and the time that the code gives it, the lease.
  expect(set).toEqual(Array(5).fill(false));
  await end(Buffer.alloc(0));
});
