import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SandboxPool } from "../executor/pool.ts";
import { turn } from "../executor/testing/fake-sandbox.ts";
import { Sessions } from "./sessions.ts";
import { FakeSessionSandbox } from "./testing/fake-sandbox.ts";
import { FakeStore, newDisk } from "./testing/fake-store.ts";
import { FakeWorkspaces, newWorkspaceDisk } from "./testing/fake-workspaces.ts";
import { TurnQueue } from "./turn-queue.ts";

const GONE = new Error("the client went away");

describe("a queue of turns", () => {
  const asked = fc.record({
    /** Turns of the event loop that the action takes, and until its caller gives up; null: never. */
    takes: fc.nat(3),
    patience: fc.option(fc.integer({ min: 1, max: 12 })),
    pause: fc.nat(2),
    fails: fc.boolean(),
  });

  test("runs one at a time, in order, and lets go at once of what is given up while it waits", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 6 }), fc.array(asked, { maxLength: 20 }), async (limit, all) => {
        const queue = new TurnQueue(limit);
        const begun: number[] = [];
        /** Those that wait or run, by what the test saw. */
        const there = new Set<number>();
        let running = 0;
        const outcomes = [];
        for (const [i, { takes, patience, pause, fails }] of all.entries()) {
          for (let j = 0; j < pause; j++) await turn();
          const abort = new AbortController();
          const action = async () => {
            expect(++running).toBe(1);
            begun.push(i);
            for (let j = 0; j < takes; j++) await turn();
            running--;
            there.delete(i);
            if (fails) throw new Error("failed");
            return i;
          };
          if (there.size >= limit) {
            expect(() => queue.run(action, abort.signal)).toThrow(
              expect.objectContaining({ code: "session_queue_full" }),
            );
            continue;
          }
          there.add(i);
          const outcome = queue.run(action, abort.signal).then(
            (value) => expect([i, fails]).toEqual([value, false]),
            (error: Error) => expect(error.message).toBe(begun.includes(i) ? "failed" : GONE.message),
          );
          if (patience !== null) {
            const giveUp = async () => {
              for (let j = 0; j < patience; j++) await turn();
              abort.abort(GONE);
              if (!begun.includes(i)) there.delete(i);
              await turn();
              expect(queue.length).toBe(there.size);
            };
            outcomes.push(giveUp());
          }
          outcomes.push(outcome);
        }
        await Promise.all(outcomes);
        expect(begun).toEqual(begun.toSorted((a, b) => a - b));
        expect(queue.length).toBe(0);
      }),
    );
  });

  test("has what comes instead of the others go first, and refuses those that wait, and none that comes later", async () => {
    const queue = new TurnQueue(3);
    const first = Promise.withResolvers<string>();
    const refusal = new Error("refused");
    const done: string[] = [];
    const run = (name: string, how: "run" | "runInstead" = "run") => {
      const action = async () => void done.push(name);
      const ran = how === "run" ? queue.run(action, undefined) : queue.runInstead(action, undefined, refusal);
      return ran.then(
        () => "ran",
        (error: Error) => error.message,
      );
    };
    const running = queue.run(() => first.promise, undefined);
    const waiting = [run("a"), run("b")];
    const instead = run("instead", "runInstead");
    const again = run("again", "runInstead");
    expect(() => run("full", "runInstead")).toThrow(expect.objectContaining({ code: "session_queue_full" }));
    expect(await Promise.all(waiting)).toEqual(["refused", "refused"]);
    first.resolve("done");
    const later = instead.then(() => run("later"));
    expect([await running, await instead, await again, await later]).toEqual(["done", "ran", "ran", "ran"]);
    expect(done).toEqual(["instead", "again", "later"]);
    expect(queue.length).toBe(0);
  });

  test("keeps nothing of what was given up", async () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const queue = new TurnQueue(10);
    const first = Promise.withResolvers<void>();
    const running = queue.run(() => first.promise, undefined);
    const waitWith = (signal: AbortSignal) => {
      const body = Buffer.alloc(1000);
      const ended = queue
        .run(async () => body.length, signal)
        .then(
          () => "ran",
          () => "given up",
        );
      return { body: new WeakRef(body), ended };
    };
    const [gone, stays] = [new AbortController(), new AbortController()];
    const [given, kept] = [waitWith(gone.signal), waitWith(stays.signal)];
    gone.abort(GONE);
    expect(await given.ended).toBe("given up");
    await turn();
    collect();
    expect(given.body.deref()).toBeUndefined();
    // Else this would show nothing.
    expect(kept.body.deref()).toBeDefined();
    first.resolve();
    await running;
    expect(await kept.ended).toBe("ran");
  });
});

test("whatever waits for a session leaves the line when its client goes, and comes to nothing", async () => {
  const environment = "stdlib";
  const principal = "alice";
  const pool = new SandboxPool<FakeSessionSandbox>({
    size: 1,
    queueLimit: 100,
    maxExecutions: 20,
    maxAgeMs: 1e9,
    environment,
    start: async () => new FakeSessionSandbox(),
  });
  const sessions = new Sessions({
    pool,
    store: new FakeStore(newDisk()),
    identityOf: () => "e".repeat(64),
    durability: "commit",
    defaultTtlMs: 1e9,
    maxBytes: 1e6,
    maxOfPrincipal: 10,
    files: { maxBytes: 1e6, maxFiles: 10 },
    workspaces: new FakeWorkspaces(newWorkspaceDisk()),
    onError: () => {},
  });
  await pool.start();
  await sessions.create(principal, { environment, id: "s" });
  const code = (adds: number) => JSON.stringify({ adds, end: "well", turns: 0 });
  const execute = (adds: number, signal?: AbortSignal) =>
    sessions.execute("s", { code: code(adds), timeoutMs: 1000, environment, principal, signal });
  await execute(1);

  // Another's execution has the only sandbox, and one of the session waits for it: the session's turn is taken.
  const other = Promise.withResolvers<void>();
  const busy = pool.use({ principal: "bob", environment, signal: undefined }, async () => await other.promise);
  await expect.poll(() => pool.status().busy).toBe(1);
  const first = execute(2);
  await expect.poll(() => pool.status().queued).toBe(1);

  const { checkpoints, files } = sessions;
  const waits: Record<string, (signal: AbortSignal) => Promise<unknown>> = {
    execute: (signal) => execute(3, signal),
    fork: (signal) => sessions.fork(principal, "s", signal),
    move: (signal) => sessions.move(principal, "s", signal, environment),
    restore: (signal) => sessions.restore(principal, "s", signal, "@previous"),
    reset: (signal) => sessions.reset(principal, "s", signal),
    checkpoint: (signal) => checkpoints.create(principal, "s", signal, "c"),
    write: (signal) => files.write(principal, "s", signal, "/home/pyodide/a", Buffer.from("a")),
    remove: (signal) => files.delete(principal, "s", signal, "/home/pyodide/a"),
  };
  for (const [name, wait] of Object.entries(waits)) {
    const client = new AbortController();
    const ended = wait(client.signal).then(
      () => "went on",
      (error: Error) => error.message,
    );
    await turn();
    client.abort(GONE);
    expect([name, await ended]).toEqual([name, GONE.message]);
  }

  other.resolve();
  await busy;
  expect((await first).result.parseAll()).toEqual([1, 2]);
  expect((await execute(4)).result.parseAll()).toEqual([1, 2, 4]);
  expect(await checkpoints.list(principal, "s")).toMatchObject([{ name: "@previous" }]);
  expect(await sessions.list(principal)).toHaveLength(1);
  expect((await files.list(principal, "s")).filter(({ kind }) => kind === "file")).toEqual([]);
  // Ended by a client that is there still.
  await sessions.delete(principal, "s", new AbortController().signal);
  expect(await sessions.list(principal)).toEqual([]);
  await sessions.stop(1000);
  await pool.stop(0);
});
