import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, test } from "vitest";
import { executeInSession, type SessionExecution, type SessionPool } from "./run.ts";

const MANY = 50;

/** A pool of which all sandboxes are busy until `free`, and then one execution after another gets one; after `occupy` they are busy again. */
function busyPool() {
  let gate = Promise.withResolvers<void>();
  const pool: Pick<SessionPool, "use" | "holds"> = {
    holds: () => false,
    use: async (_options, use) => {
      await gate.promise;
      return await use({} as never, { isResident: false } as never);
    },
  };
  const occupy = () => {
    gate = Promise.withResolvers();
  };
  return { pool: pool as SessionPool, free: () => gate.resolve(), occupy };
}

test("of many executions that wait for a sandbox few have their session's state in memory", async () => {
  const { pool, free, occupy } = busyPool();
  let loads = 0;
  const begun: boolean[] = [];
  const execution = (): SessionExecution => {
    let loaded: Promise<never> | undefined;
    const load = () => {
      loaded ??= Promise.resolve({} as never);
      return loaded;
    };
    const part: Partial<SessionExecution> = {
      request: { environment: "stdlib", principal: "alice" } as SessionExecution["request"],
      resident: null,
      workspace: null,
      load: () => {
        if (loaded === undefined) loads++;
        return load();
      },
      onBegin: () => {
        begun.push(loaded !== undefined);
        throw new Error("far enough");
      },
    };
    return part as SessionExecution;
  };
  const running = Array.from({ length: MANY }, () => executeInSession(pool, execution()).catch(String));
  for (let i = 0; i < 100; i++) await nextTurn();
  expect(loads).toBe(2);
  free();
  expect(await Promise.all(running)).toEqual(Array(MANY).fill("Error: far enough"));
  expect(loads).toBe(MANY);
  // Each had its state before anything was done to its sandbox.
  expect(begun).toEqual(Array(MANY).fill(true));
  // Room for others is there again.
  occupy();
  loads = 0;
  const later = Array.from({ length: MANY }, () => executeInSession(pool, execution()).catch(String));
  for (let i = 0; i < 100; i++) await nextTurn();
  expect(loads).toBe(2);
  free();
  await Promise.all(later);
});
