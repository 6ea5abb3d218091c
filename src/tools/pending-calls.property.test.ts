import fc from "fast-check";
import { expect, test } from "vitest";
import { JsonText } from "../shared/json/json-text.ts";
import type { ToolAnswerHead } from "../wire/host-calls.ts";
import { toolSet } from "./definitions.ts";
import type { EndedCall, ToolEvent } from "./events.ts";
import { PendingCalls } from "./pending-calls.ts";

const SIGNAL = new AbortController().signal;

/** What happens to an execution's calls, in any order; each names a call by a number that is taken modulo those that there are. */
type Step =
  | { readonly do: "start" }
  | { readonly do: "answer"; readonly calls: readonly number[]; readonly fails: boolean }
  | { readonly do: "answer-twice" | "overdue"; readonly call: number }
  | { readonly do: "wait"; readonly calls: readonly number[] };

const number = fc.nat(50);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.constant({ do: "start" as const }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("answer" as const),
      calls: fc.uniqueArray(number, { maxLength: 4 }),
      fails: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom("answer-twice" as const), call: number }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("wait" as const),
      calls: fc.uniqueArray(number, { minLength: 1, maxLength: 6 }),
    }),
  },
);

/** What a call is, by what has happened to it: the model that the real thing is held against. */
interface Known {
  readonly id: number;
  readonly event: ToolEvent;
  state: "open" | "answered" | "taken";
  fails: boolean;
}

test("whatever the order: each answer is taken once, by what waits for it, and nothing else wakes the code", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const shown: ToolEvent[] = [];
      const ended: EndedCall[] = [];
      let blocks = 0;
      const pending = new PendingCalls({
        principal: "tester",
        tools: toolSet([{ name: "t" }]),
        interactive: false,
        mode: "sync",
        check: false,
        client: { send: (event) => shown.push(event), blocked: () => blocks++ },
        callTimeoutMs: 1e9,
        maxWaitMs: 1e9,
        maxCalls: 1000,
        onEnded: (call) => ended.push(call),
      });
      const calls = pending.calls(async () => []);
      const known: Known[] = [];
      const pick = (n: number) => known[n % known.length] as Known;
      /** A wait that is under way: code waits in one place at a time. */
      let waiting: { readonly ids: readonly number[]; readonly done: Promise<void>; isDone: boolean } | null = null;

      const take = (answer: Awaited<ReturnType<(typeof calls)["tool-wait"]["answer"]>>, ids: readonly number[]) => {
        let position = 0;
        const bytes = Buffer.from(answer.body ?? []);
        for (const head of answer.value.calls as ToolAnswerHead[]) {
          const call = known.find(({ id }) => id === head.id);
          const value = JSON.parse(bytes.subarray(position, position + head.bytes).toString());
          position += head.bytes;
          expect(ids).toContain(head.id);
          expect(call).toBeDefined();
          if (call?.state === "taken") {
            // It has had its answer: there is no second one.
            expect([head.kind, value]).toEqual(["error", { message: "the execution that made this call is over" }]);
            continue;
          }
          expect(call?.state).toBe("answered");
          if (call) call.state = "taken";
          expect([head.kind, value]).toEqual(
            call?.fails ? ["error", { message: call.event.id }] : ["result", call?.event.id],
          );
        }
        expect(position).toBe(bytes.length);
      };
      const answers = (chosen: readonly Known[], fails: boolean) =>
        chosen.map(({ event: { id } }) => (fails ? { id, error: { message: id } } : { id, result: JsonText.of(id) }));

      for (const { do: what, ...step } of steps) {
        if (what === "start" && waiting === null) {
          const { value } = await calls["tool-start"].answer({ tool: "t", input: `{"n":${known.length}}` }, SIGNAL);
          known.push({ id: value as number, event: shown.at(-1) as ToolEvent, state: "open", fails: false });
        } else if (what === "answer" && known.length > 0) {
          const { calls: numbers, fails } = step as { calls: number[]; fails: boolean };
          const chosen = [...new Set(numbers.map(pick))];
          const isRefused = chosen.some(({ state }) => state !== "open");
          const give = () => pending.answer(answers(chosen, fails));
          if (isRefused) expect(give).toThrow("The call has its answer");
          else {
            give();
            for (const call of chosen) [call.state, call.fails] = ["answered", fails];
          }
        } else if (what === "answer-twice" && known.length > 0) {
          const call = pick((step as { call: number }).call);
          expect(() => pending.answer([...answers([call], false), ...answers([call], true)])).toThrow(/answer/);
        } else if (what === "wait" && known.length > 0 && waiting === null) {
          const ids = [...new Set((step as { calls: number[] }).calls.map((n) => pick(n).id))];
          const mustBlock = ids.every((id) => known.find((call) => call.id === id)?.state === "open");
          const before = blocks;
          const answer = Promise.resolve(calls["tool-wait"].answer({ ids, requests: [], timeoutMs: null }, SIGNAL));
          expect(blocks - before).toBe(mustBlock ? 1 : 0);
          const own = { ids, isDone: false, done: Promise.resolve() };
          own.done = answer.then((given) => {
            own.isDone = true;
            take(given, ids);
          });
          waiting = own;
          if (!mustBlock) await own.done;
        }
        if (waiting !== null) {
          const current = waiting;
          const isAnswered =
            current.isDone || current.ids.some((id) => known.find((call) => call.id === id)?.state !== "open");
          if (isAnswered) {
            await current.done;
            waiting = null;
          }
          expect(pending.isWaiting).toBe(!isAnswered);
        }
        expect(pending.open.map(({ id }) => id)).toEqual(
          known.filter(({ state }) => state === "open").map(({ event }) => event.id),
        );
      }
      const left = pending.open.length;
      // What waits then is told that the execution is over.
      for (const call of known) if (call.state === "open") call.state = "taken";
      pending[Symbol.dispose]();
      await waiting?.done;
      expect(pending.open).toEqual([]);
      // Each call is on record once.
      expect(ended).toHaveLength(known.length);
      expect(ended.filter(({ outcome }) => outcome === "abandoned")).toHaveLength(left);
    }),
    { numRuns: 300 },
  );
});
