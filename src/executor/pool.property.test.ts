import { randomInt } from "node:crypto";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { ClientError } from "../shared/errors.ts";
import { SandboxPool } from "./pool.ts";
import { FakeSandbox, PRISTINE, RESIDENT, turn } from "./testing/fake-sandbox.ts";

/** `SEED=… npx vitest run src/executor` runs other sequences; the nightly run draws one, and names it. */
const SEED = Number(process.env.SEED ?? (process.env.SCAN_ALL === "1" ? randomInt(2 ** 31) : 1));
const DEFAULT = "default";
const MAX_EXECUTIONS = 3;
const MAX_AGE_MS = 50_000;

beforeAll(() => void vi.useFakeTimers({ toFake: ["setTimeout", "Date", "performance"] }));
afterAll(() => void vi.useRealTimers());

/** A sandbox that remembers what became of it, to be held against what the pool does with it. */
class Witness extends FakeSandbox {
  readonly environment: string;
  readonly principals = new Set<string>();
  isHeld = false;
  /** The session on it. */
  session: string | null = null;
  isPinned = false;
  /** Since when, from one execution to the next. */
  pinnedSinceMs = 0;
  executions = 0;
  /** When the test ended it. */
  endedAtTurn = -1;
  /** Why it must not be acquired again; null: it may. */
  isOver: string | null = null;

  constructor(environment: string) {
    super();
    this.environment = environment;
    void this.ended.then((reason) => {
      this.isOver ??= reason;
    });
  }

  override async rewind() {
    this.session = null;
    this.isPinned = false;
    return await super.rewind();
  }
}

interface Use {
  readonly type: "use";
  readonly principal: string;
  readonly environment: string;
  readonly session: number | null;
  readonly end: "pristine" | "retained" | "pinned" | "left" | "discarded" | "thrown" | "dies";
  readonly turns: number;
  /** Turns until the caller gives up waiting; null: never. */
  readonly patience: number | null;
}
type Step =
  | Use
  | { readonly type: "kill"; readonly which: number }
  | { readonly type: "evict"; readonly which: number }
  | { readonly type: "pass"; readonly ms: number }
  | { readonly type: "turn" };

const use: fc.Arbitrary<Use> = fc.record({
  type: fc.constant("use"),
  principal: fc.constantFrom("alice", "bob", "carol"),
  environment: fc.constantFrom(DEFAULT, DEFAULT, "numpy", "flaky"),
  session: fc.option(fc.nat(2)),
  end: fc.constantFrom("pristine", "pristine", "retained", "retained", "pinned", "left", "discarded", "thrown", "dies"),
  turns: fc.nat(4),
  patience: fc.option(fc.nat(10), { freq: 5 }),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: use },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("kill"), which: fc.nat(5) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("evict"), which: fc.nat(5) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("pass"), ms: fc.nat(40_000) }) },
  { weight: 4, arbitrary: fc.record({ type: fc.constant("turn") }) },
);
const setting = fc.record({
  size: fc.integer({ min: 1, max: 4 }),
  sharing: fc.constantFrom("all" as const, "all" as const, "principal" as const),
  queueLimit: fc.integer({ min: 0, max: 12 }),
  maxPerPrincipal: fc.integer({ min: 1, max: 4 }),
  warms: fc.constantFrom(null, "well", "spoils"),
  startTurns: fc.nat(4),
});

class Harness {
  readonly alive = new Set<Witness>();
  readonly evicted: string[] = [];
  readonly retained = new Set<string>();
  readonly outcomes: Promise<unknown>[] = [];
  readonly inUse = new Map<string, number>();
  readonly pool: SandboxPool<Witness>;
  starts = 0;
  isStopped = false;
  readonly #setting: typeof setting extends fc.Arbitrary<infer T> ? T : never;
  #running = 0;
  #turn = 0;
  #keys = 0;
  /** By number of session: the key that its last user left. */
  readonly #sessions = new Map<string, string>();

  constructor(setting: Harness["setting"]) {
    this.#setting = setting;
    const { warms, startTurns, ...options } = setting;
    const flaky = new Map<string, number>();
    this.pool = new SandboxPool<Witness>({
      ...options,
      maxExecutions: MAX_EXECUTIONS,
      maxAgeMs: MAX_AGE_MS,
      environment: DEFAULT,
      start: async (environment) => {
        expect(this.isStopped).toBe(false);
        this.starts++;
        for (let i = 0; i < startTurns; i++) await turn();
        const count = (flaky.get(environment) ?? 0) + 1;
        flaky.set(environment, count);
        if (environment === "flaky" && count % 3 !== 0) throw new Error("boot failed");
        const sandbox = new Witness(environment);
        this.alive.add(sandbox);
        void sandbox.ended.then(() => this.alive.delete(sandbox));
        return sandbox;
      },
      ...(warms !== null && {
        warmUp: async (sandbox) => {
          await turn();
          if (warms === "spoils") sandbox.isOver = "spoiled";
          return warms === "well" ? PRISTINE : { state: "discard" as const, reason: "spoiled" };
        },
      }),
    });
    this.pool.on("evicted", (key) => this.evicted.push(key));
  }

  get setting() {
    return this.#setting;
  }

  do(step: Step): void {
    if (step.type === "use") this.outcomes.push(this.#use(step).catch((error: unknown) => error));
    const victim = step.type === "kill" ? [...this.alive][step.which] : undefined;
    if (victim) {
      // Only where a caller may have been given one that it has not begun with.
      if (this.pool.status().busy > this.#running) victim.endedAtTurn = this.#turn;
      victim.kill("out of memory");
    }
    if (step.type === "evict") {
      const key = [...this.#sessions.values()][step.which];
      if (key !== undefined) this.pool.evict(key);
    }
    expect(this.pool.status().queued).toBeLessThanOrEqual(this.#setting.queueLimit);
  }

  async pass(step: Step): Promise<void> {
    if (step.type === "pass") await vi.advanceTimersByTimeAsync(step.ms);
    await turn();
    this.#turn++;
  }

  async #use({ principal, environment, session, end, turns, patience }: Use): Promise<string> {
    const name = `${principal}-${environment}-${session}`;
    const resident = session === null ? undefined : this.#sessions.get(name);
    const abort = new AbortController();
    if (patience !== null) void this.#abortAfter(abort, patience);
    const options = { principal, environment, signal: abort.signal, ...(resident !== undefined && { resident }) };
    return await this.pool.use(options, async (sandbox, checkout) => {
      const { size, sharing, maxPerPrincipal } = this.#setting;
      expect(sandbox.isHeld).toBe(false);
      // What ends between the pool's choice and the caller's next step has been alive when it was chosen.
      if (sandbox.endedAtTurn !== this.#turn) {
        expect(sandbox.isOver).toBeNull();
        expect(sandbox.endReason).toBeNull();
      }
      expect(sandbox.environment).toBe(environment);
      expect(checkout.isResident).toBe(sandbox.session !== null);
      if (checkout.isResident) expect(sandbox.session).toBe(resident);
      sandbox.principals.add(principal);
      if (sharing === "principal") expect([...sandbox.principals]).toEqual([principal]);
      this.inUse.set(principal, (this.inUse.get(principal) ?? 0) + 1);
      expect(this.inUse.get(principal)).toBeLessThanOrEqual(maxPerPrincipal);
      expect(++this.#running).toBeLessThanOrEqual(size);
      sandbox.isHeld = true;
      sandbox.executions++;
      const settle = sandbox.begin();
      for (let i = 0; i < turns && sandbox.endReason === null; i++) await turn();
      const isPinned = end === "pinned";
      if (session !== null && (end === "retained" || isPinned)) {
        const key = `${name}#${++this.#keys}`;
        this.#sessions.set(name, key);
        this.retained.add(key);
        checkout.retain(key);
        if (isPinned) checkout.pin();
        sandbox.session = key;
        if (isPinned && !sandbox.isPinned) sandbox.pinnedSinceMs = performance.now();
        sandbox.isPinned = isPinned;
      } else sandbox.session = end === "left" ? "not retained" : null;
      if (end === "discarded") sandbox.isOver = "it cannot be rewound";
      const isOld = sandbox.executions >= MAX_EXECUTIONS || performance.now() - sandbox.startedAt >= MAX_AGE_MS;
      const isDue = sandbox.isPinned && performance.now() - sandbox.pinnedSinceMs >= MAX_AGE_MS;
      if (isOld && (!sandbox.isPinned || isDue)) sandbox.isOver ??= "it has served";
      this.#running--;
      this.inUse.set(principal, (this.inUse.get(principal) ?? 0) - 1);
      sandbox.isHeld = false;
      if (end === "dies") sandbox.kill("out of memory");
      else if (end === "discarded") settle({ state: "discard", reason: "it cannot be rewound" });
      else settle(sandbox.session === null ? PRISTINE : RESIDENT);
      if (end === "thrown") throw new Error("thrown");
      return "done";
    });
  }

  async #abortAfter(abort: AbortController, turns: number): Promise<void> {
    for (let i = 0; i < turns; i++) await turn();
    abort.abort(new Error("gave up"));
  }
}

/** @throws an assertion of a `use`, or what else no caller may be told. */
async function check(outcomes: readonly Promise<unknown>[], ...refusals: string[]): Promise<void> {
  for (const outcome of await Promise.all(outcomes)) {
    if (outcome instanceof ClientError && refusals.includes(outcome.code)) continue;
    if (outcome instanceof Error && !/^(thrown|gave up)$/.test(outcome.message)) throw outcome;
  }
}

describe(`the pool, whatever happens in whatever order (SEED=${SEED})`, { timeout: 120_000 }, () => {
  test("no sandbox serves two at a time or goes on when it must not; all requests end, and all slots recover", async () => {
    await fc.assert(
      fc.asyncProperty(setting, fc.array(step, { maxLength: 60, size: "max" }), async (setting, steps) => {
        const harness = new Harness(setting);
        const { pool, outcomes, alive, retained, evicted } = harness;
        await pool.start();
        for (const next of steps) {
          harness.do(next);
          if (next.type === "turn" || next.type === "pass") await harness.pass(next);
        }
        // Longer than the longest pause after a failed start, several times.
        for (let i = 0; i < 30; i++) {
          await vi.advanceTimersByTimeAsync(10_000);
          for (let j = 0; j < 8; j++) await turn();
        }
        await check(outcomes, "queue_full", "environment_broken");
        const slots = setting.size + (setting.sharing === "all" ? 0 : Math.ceil(setting.size / 2));
        expect(pool.status()).toMatchObject({ idle: slots, busy: 0, starting: 0, failed: 0, queued: 0 });
        expect(alive.size).toBe(slots);
        expect(new Set(pool.sandboxes())).toEqual(alive);
        // A session that was left is there still, or its owner has been told once that it is not.
        expect(new Set(evicted).size).toBe(evicted.length);
        for (const key of retained) expect(pool.keeps(key)).toBe(!evicted.includes(key));
        // Longer than the most that a sandbox may keep a pinned session.
        for (const sandbox of alive) expect(sandbox.isPinned).toBe(false);
        for (const sandbox of alive) expect(sandbox.session === null || pool.keeps(sandbox.session)).toBe(true);
        await pool.stop(0);
        expect(alive.size).toBe(0);
      }),
      { seed: SEED, numRuns: 300 },
    );
  });

  test("sessions that a principal pins keep no other waiting where it has more than its share, and stay where it has not", async () => {
    // What stays has no end: code of hours.
    const act = fc.constantFrom("pins", "pins", "goes on", "stays", "runs");
    const bounds = fc
      .integer({ min: 2, max: 5 })
      .chain((size) => fc.record({ size: fc.constant(size), share: fc.integer({ min: 1, max: size - 1 }) }));
    await fc.assert(
      fc.asyncProperty(
        bounds,
        fc.array(act, { maxLength: 20 }),
        fc.boolean(),
        async ({ size, share }, acts, isBusy) => {
          const pool = new SandboxPool<Witness>({
            size,
            queueLimit: 1000,
            maxPerPrincipal: share,
            maxExecutions: 1000,
            maxAgeMs: 1e9,
            environment: DEFAULT,
            start: async (environment) => new Witness(environment),
          });
          await pool.start();
          const evicted = new Set<string>();
          pool.on("evicted", (key) => evicted.add(key));
          const end = Promise.withResolvers<void>();
          const gone = new AbortController();
          const base = { environment: DEFAULT, signal: gone.signal };
          /** Keys of sessions that are pinned. */
          const pinned: string[] = [];
          let [keys, staying] = [0, 0];
          const use = (type: string, resident: string | undefined) =>
            pool.use(
              { ...base, principal: "alice", ...(resident !== undefined && { resident }) },
              async (sandbox, checkout) => {
                // Else a session would lose what it has without a word.
                if (resident !== undefined) expect(checkout.isResident).toBe(!evicted.has(resident));
                const settle = sandbox.begin();
                if (type === "stays") {
                  staying++;
                  await end.promise;
                } else await turn();
                const isPinned = type === "pins" || type === "goes on";
                if (isPinned) {
                  const key = `session#${++keys}`;
                  pinned.push(key);
                  checkout.retain(key);
                  checkout.pin();
                }
                settle(isPinned ? RESIDENT : PRISTINE);
              },
            );
          const uses: Promise<unknown>[] = [];
          for (const type of acts) {
            const resident = type === "goes on" ? pinned.shift() : undefined;
            uses.push(use(type, resident).catch((error: unknown) => error));
            for (let i = 0; i < 6; i++) await turn();
          }
          const kept = pinned.filter((key) => pool.holds(key)).length;
          const before = evicted.size;
          const isIdle = pool.status().queued === 0;
          const stay = async (sandbox: Witness) => {
            const settle = sandbox.begin();
            await end.promise;
            settle(PRISTINE);
          };
          const carols = isBusy ? size : 0;
          for (let i = 0; i < carols; i++)
            uses.push(pool.use({ ...base, principal: "carol" }, stay).catch((error: unknown) => error));
          let isServed = false;
          const bob = pool.use({ ...base, principal: "bob" }, async (sandbox) => {
            isServed = true;
            sandbox.begin()(PRISTINE);
          });
          for (let i = 0; i < 6 * (acts.length + 1) && !isServed; i++) await turn();
          if (!isBusy) expect(isServed).toBe(true);
          if (isIdle && kept + staying <= share) expect(evicted.size).toBe(before);
          end.resolve();
          await bob;
          gone.abort(new Error("gave up"));
          await check(uses);
          await pool.stop(0);
        },
      ),
      { seed: SEED, numRuns: 300 },
    );
  });

  test("a principal is passed by each other at most once for each request it has waiting", async () => {
    const request = fc.record({
      principal: fc.constantFrom("alice", "bob", "carol", "dora"),
      turns: fc.nat(3),
      pause: fc.nat(2),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        fc.array(request, { maxLength: 40, size: "max" }),
        async (size, requests) => {
          const pool = new SandboxPool<Witness>({
            size,
            queueLimit: 1000,
            maxExecutions: 1000,
            maxAgeMs: 1e9,
            environment: DEFAULT,
            start: async (environment) => new Witness(environment),
          });
          await pool.start();
          const granted: string[] = [];
          const waiting = new Map<string, number>();
          const uses = requests.map(async ({ principal, turns, pause }, index) => {
            for (let i = 0; i < pause + index / 2; i++) await turn();
            const ahead = waiting.get(principal) ?? 0;
            const seen = granted.length;
            waiting.set(principal, ahead + 1);
            await pool.use({ principal, environment: DEFAULT, signal: undefined }, async (sandbox) => {
              const passed = granted.slice(seen);
              granted.push(principal);
              waiting.set(principal, (waiting.get(principal) ?? 0) - 1);
              for (const other of new Set(passed)) {
                if (other === principal) continue;
                expect(passed.filter((name) => name === other).length).toBeLessThanOrEqual(ahead + 1);
              }
              const settle = sandbox.begin();
              for (let i = 0; i < turns; i++) await turn();
              settle(PRISTINE);
            });
          });
          await Promise.all(uses);
          expect(granted).toHaveLength(requests.length);
          await pool.stop(0);
        },
      ),
      { seed: SEED, numRuns: 150 },
    );
  });

  test("a pool that stops answers every request, ends every process, and starts no other", async () => {
    await fc.assert(
      fc.asyncProperty(
        setting,
        fc.array(step, { maxLength: 40, size: "max" }),
        fc.nat(3),
        async (setting, steps, turns) => {
          const harness = new Harness(setting);
          const { pool, outcomes, alive } = harness;
          await pool.start();
          for (const next of steps) {
            harness.do(next);
            if (next.type === "turn" || next.type === "pass") await harness.pass(next);
          }
          for (let i = 0; i < turns; i++) await turn();
          const stopped = pool.stop(0);
          await expect(
            pool.use({ principal: "late", environment: DEFAULT, signal: undefined }, async () => "done"),
          ).rejects.toMatchObject({ code: "server_stopping" });
          await stopped;
          harness.isStopped = true;
          expect(alive.size).toBe(0);
          expect(pool.isReady).toBe(false);
          await check(outcomes, "queue_full", "environment_broken", "server_stopping");
          await vi.advanceTimersByTimeAsync(300_000);
          expect(alive.size).toBe(0);
        },
      ),
      { seed: SEED, numRuns: 150 },
    );
  });
});
