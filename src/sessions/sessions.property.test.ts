import { randomInt } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SandboxPool } from "../executor/pool.ts";
import { PRISTINE, turn } from "../executor/testing/fake-sandbox.ts";
import type { ExecutionResult } from "../sandbox/outcome.ts";
import { ClientError } from "../shared/errors.ts";
import { Sessions } from "./sessions.ts";
import { type FakeProgram, FakeSessionSandbox } from "./testing/fake-sandbox.ts";
import { type Disk, FakeStore, newDisk } from "./testing/fake-store.ts";

/** `SEED=… npx vitest run src/sessions` runs other sequences; the nightly run draws one, and names it. */
const SEED = Number(process.env.SEED ?? (process.env.SCAN_ALL === "1" ? randomInt(2 ** 31) : 1));
const IDS = ["a", "b", "c"] as const;
const PRINCIPAL = "alice";
const ENVIRONMENT = "stdlib";

type Step =
  | ({ readonly type: "execute"; readonly id: (typeof IDS)[number] } & Omit<FakeProgram, "adds">)
  /** Another principal's executions take all sandboxes. */
  | { readonly type: "pressure" }
  | { readonly type: "kill"; readonly which: number }
  | { readonly type: "store"; readonly isAway: boolean }
  | { readonly type: "interrupt"; readonly id: (typeof IDS)[number] }
  | { readonly type: "crash" }
  | { readonly type: "turn" };

const steps = (ends: readonly FakeProgram["end"][], mayCrash: boolean): fc.Arbitrary<Step[]> => {
  const id = fc.constantFrom(...IDS);
  const execute = fc.record({
    type: fc.constant("execute"),
    id,
    end: fc.constantFrom(...ends),
    turns: fc.nat(3),
  });
  const rare = fc.oneof(
    fc.record({ type: fc.constant("pressure") }),
    fc.record({ type: fc.constant("kill"), which: fc.nat(2) }),
    fc.record({ type: fc.constant("store"), isAway: fc.boolean() }),
    fc.record({ type: fc.constant("interrupt"), id }),
    fc.record({ type: fc.constant(mayCrash ? "crash" : "pressure") }),
  );
  const step = fc.oneof(
    { weight: 6, arbitrary: execute },
    { weight: 2, arbitrary: rare },
    { weight: 6, arbitrary: fc.record({ type: fc.constant("turn") }) },
  );
  return fc.array(step, { maxLength: 60, size: "max" }) as fc.Arbitrary<Step[]>;
};

/** What its caller may believe of a session. */
interface Belief {
  /** What the last reply said that it is. */
  promised: readonly number[];
  /** What it was when it could last be stored. */
  durable: readonly number[];
  /** The last reply said that it cannot leave its sandbox. */
  isPinned: boolean;
  /** What it is if an execution whose reply never came was stored all the same. */
  unanswered: (readonly number[])[];
  /** Everything that it has been. */
  readonly before: (readonly number[])[];
  /** Executions of it come one after another. */
  last: Promise<void>;
}

class Harness {
  readonly beliefs = new Map<string, Belief>();
  readonly #disk: Disk = newDisk();
  readonly #size: number;
  readonly #durability: "commit" | "after-reply";
  #server: { readonly sessions: Sessions; readonly store: FakeStore; readonly pool: SandboxPool<FakeSessionSandbox> };
  /** Counts up with each crash. */
  #life = 0;
  #numbers = 0;
  #onCrash: (() => void)[] = [];
  readonly #others: Promise<unknown>[] = [];

  constructor(size: number, durability: "commit" | "after-reply") {
    this.#size = size;
    this.#durability = durability;
    this.#server = this.#start();
  }

  #start(): Harness["server"] {
    const store = new FakeStore(this.#disk);
    const pool = new SandboxPool<FakeSessionSandbox>({
      size: this.#size,
      // As where several have keys: a session may have to wait although its sandbox is idle.
      maxPerPrincipal: Math.max(1, this.#size - 1),
      queueLimit: 100,
      maxExecutions: 20,
      maxAgeMs: 1e9,
      environment: ENVIRONMENT,
      start: async () => new FakeSessionSandbox(),
    });
    const sessions = new Sessions({
      pool,
      store,
      identityOf: () => "e".repeat(64),
      durability: this.#durability,
      defaultTtlMs: 1e9,
      maxBytes: 1e6,
      maxOfPrincipal: 10,
      files: { maxBytes: 1e6, maxFiles: 10 },
      onError: () => {},
    });
    return { sessions, store, pool };
  }

  get server() {
    return this.#server;
  }

  async begin(): Promise<void> {
    await this.#server.pool.start();
    for (const id of IDS) {
      await this.#server.sessions.create(PRINCIPAL, { environment: ENVIRONMENT, id });
      const nothing = { promised: [], durable: [], isPinned: false };
      this.beliefs.set(id, { ...nothing, unanswered: [], before: [[]], last: Promise.resolve() });
    }
  }

  async do(step: Step): Promise<void> {
    const { pool, store, sessions } = this.#server;
    if (step.type === "execute") this.execute(step.id, step);
    if (step.type === "kill") pool.sandboxes()[step.which]?.kill("out of memory");
    if (step.type === "store") store.isAway = step.isAway;
    if (step.type === "interrupt") void sessions.interrupt(PRINCIPAL, step.id).catch(() => {});
    if (step.type === "pressure")
      for (let i = 0; i < this.#size; i++) {
        const options = { principal: "bob", environment: ENVIRONMENT, signal: undefined };
        const use = pool.use(options, async (sandbox) => {
          expect(sandbox.memory).toBeNull();
          sandbox.begin()(PRISTINE);
        });
        this.#others.push(use.catch((error: unknown) => error));
      }
    if (step.type === "crash") await this.#crash();
    if (step.type === "turn") await turn();
  }

  execute(id: string, { end, turns }: Omit<FakeProgram, "adds">): void {
    const belief = this.beliefs.get(id) as Belief;
    belief.last = belief.last.then(() => this.#execute(id, belief, { end, turns, adds: ++this.#numbers }));
    void belief.last.catch(() => {});
  }

  async #execute(id: string, belief: Belief, program: FakeProgram): Promise<void> {
    const life = this.#life;
    const { sessions } = this.#server;
    // It goes on from what the last reply said, or, where that was pinned to a sandbox that has died, from what was stored.
    const bases = [belief.promised, belief.durable];
    const crashed = new Promise<"crashed">((resolve) => this.#onCrash.push(() => resolve("crashed")));
    const execution = sessions.execute(id, {
      code: JSON.stringify(program),
      timeoutMs: 1000,
      environment: ENVIRONMENT,
      principal: PRINCIPAL,
    });
    const reply = await Promise.race([execution.catch((error: unknown) => error), crashed]);
    if (reply === "crashed" || life !== this.#life) {
      belief.unanswered.push(...bases.map((base) => [...base, program.adds]));
      return;
    }
    if (reply instanceof ClientError) {
      // Two sandboxes that are killed while they load it: nothing has run.
      expect(["store_unavailable", "interrupted", "session_unloadable"]).toContain(reply.code);
      return;
    }
    if (reply instanceof Error) throw reply;
    this.#believe(belief, program.adds, reply as ExecutionResult);
  }

  /** Holds a reply against what the replies before it said. */
  #believe(belief: Belief, adds: number, { success, result, session }: ExecutionResult): void {
    const isTold = session?.restored === true;
    if (!success) {
      // The execution came to nothing, and its caller knows to what the session has gone back.
      expect(isTold).toBe(true);
      if (session?.reason?.includes(" And before that: ")) belief.unanswered.push(...belief.before);
      if (belief.isPinned) belief.promised = belief.durable;
      belief.isPinned = false;
      return;
    }
    const value = result.parseAll() as number[];
    const base = value.slice(0, -1);
    expect(value.at(-1)).toBe(adds);
    const allowed = [belief.promised, ...belief.unanswered];
    if (isTold) allowed.push(...(this.#durability === "commit" ? [belief.durable] : belief.before));
    expect(allowed).toContainEqual(base);
    belief.before.push(value);
    // What it went on from was stored, unless it was pinned: an execution whose reply never came may have been as well.
    if (!belief.isPinned) belief.durable = base;
    belief.promised = value;
    belief.unanswered = [];
    belief.isPinned = session?.pinned !== undefined;
    if (!belief.isPinned && this.#durability === "commit") belief.durable = value;
  }

  async #crash(): Promise<void> {
    const { pool, store } = this.#server;
    store.crash();
    this.#life++;
    for (const sandbox of pool.sandboxes()) sandbox.kill("the server crashed");
    for (const tell of this.#onCrash.splice(0)) tell();
    void pool.stop(0);
    // The reply that said so is what its caller has: a pinned session is as durable as its sandbox.
    for (const belief of this.beliefs.values()) {
      if (belief.isPinned) belief.promised = belief.durable;
      belief.isPinned = false;
    }
    this.#server = this.#start();
    await this.#server.pool.start();
  }

  /** The store is back, and each session goes on from where its last reply said that it is. */
  async end(): Promise<void> {
    this.#server.store.isAway = false;
    for (const id of IDS) {
      this.execute(id, { end: "well", turns: 0 });
      await this.beliefs.get(id)?.last;
    }
    await this.#server.sessions.stop(1000);
    await this.#server.pool.stop(0);
    expect(this.#disk.leases.size).toBe(0);
    for (const error of await Promise.all(this.#others))
      if (error !== undefined && !(error instanceof ClientError)) throw error;
  }
}

describe(`sessions on sandboxes and a store that fail in any order (SEED=${SEED})`, { timeout: 120_000 }, () => {
  test.each([
    ["is stored", ["well", "well", "dies", "lost"]],
    ["is stored, or said to be pinned", ["well", "well", "stuck", "dies", "lost"]],
  ] as const)("what a reply speaks of %s: a crash at any step loses nothing of it", async (_, ends) => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 3 }), steps(ends, true), async (size, plan) => {
        const harness = new Harness(size, "commit");
        await harness.begin();
        for (const step of plan) await harness.do(step);
        await harness.end();
      }),
      { seed: SEED, numRuns: 20 },
    );
  });

  test("where the reply comes before the store has it, what is lost all the same is told with the next reply", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        steps(["well", "well", "dies", "lost"], false),
        async (size, plan) => {
          const harness = new Harness(size, "after-reply");
          await harness.begin();
          for (const step of plan) await harness.do(step);
          await harness.end();
        },
      ),
      { seed: SEED, numRuns: 20 },
    );
  });
});
