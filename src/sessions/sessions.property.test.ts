import { randomInt } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SandboxPool } from "../executor/pool.ts";
import { PRISTINE, turn } from "../executor/testing/fake-sandbox.ts";
import type { ExecutionResult } from "../sandbox/outcome.ts";
import { ClientError } from "../shared/errors.ts";
import { JsonText } from "../shared/json/json-text.ts";
import { Sessions } from "./sessions.ts";
import { type FakeProgram, FakeSessionSandbox, type FakeValue } from "./testing/fake-sandbox.ts";
import { type Disk, FakeStore, newDisk } from "./testing/fake-store.ts";
import { FakeWorkspaces, newWorkspaceDisk } from "./testing/fake-workspaces.ts";

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
  /** A client puts a file into the workspace. */
  | { readonly type: "upload" }
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
    fc.record({ type: fc.constant("upload") }),
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
  /** What its file in the workspace may hold: the last that a reply spoke of, and what an execution without a reply may have written. */
  written: readonly (string | null)[];
  /** Executions of it come one after another. */
  last: Promise<void>;
}

const UPLOADED = "/home/pyodide/uploaded";
const fileOf = (id: string) => `/home/pyodide/of-${id}`;

class Harness {
  readonly beliefs = new Map<string, Belief>();
  readonly #disk: Disk = newDisk();
  readonly #size: number;
  readonly #durability: "commit" | "after-reply";
  readonly #files: "own" | "workspace";
  readonly #workspaceDisk = newWorkspaceDisk();
  #server: {
    readonly sessions: Sessions;
    readonly store: FakeStore;
    readonly workspaces: FakeWorkspaces;
    readonly pool: SandboxPool<FakeSessionSandbox>;
  };
  #uploads = 0;
  /** The last of them that was answered. */
  #uploaded = 0;
  /** Counts up with each crash. */
  #life = 0;
  #numbers = 0;
  #onCrash: (() => void)[] = [];
  readonly #others: Promise<unknown>[] = [];

  constructor(size: number, durability: "commit" | "after-reply", files: "own" | "workspace") {
    this.#size = size;
    this.#durability = durability;
    this.#files = files;
    this.#server = this.#start();
  }

  #start(): Harness["server"] {
    const store = new FakeStore(this.#disk);
    const workspaces = new FakeWorkspaces(this.#workspaceDisk);
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
      workspaces,
      onError: () => {},
    });
    return { sessions, store, workspaces, pool };
  }

  get server() {
    return this.#server;
  }

  async begin(): Promise<void> {
    await this.#server.pool.start();
    for (const id of IDS) {
      const files = this.#files === "workspace" ? this.#files : undefined;
      await this.#server.sessions.create(PRINCIPAL, { environment: ENVIRONMENT, id, files });
      const nothing = { promised: [], durable: [], isPinned: false, written: [null] };
      this.beliefs.set(id, { ...nothing, unanswered: [], before: [[]], last: Promise.resolve() });
    }
  }

  async do(step: Step): Promise<void> {
    const { pool, store, workspaces, sessions } = this.#server;
    if (step.type === "execute") this.execute(step.id, step);
    if (step.type === "kill") pool.sandboxes()[step.which]?.kill("out of memory");
    if (step.type === "store") store.isAway = workspaces.isAway = step.isAway;
    if (step.type === "upload") void this.#upload(++this.#uploads);
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

  async #upload(number: number): Promise<void> {
    try {
      await this.#server.workspaces.of().put(UPLOADED, Buffer.from(String(number)));
      this.#uploaded = number;
    } catch (error) {
      expect(error).toMatchObject({ code: "store_unavailable" });
    }
  }

  execute(id: string, { end, turns }: Omit<FakeProgram, "adds">): void {
    const belief = this.beliefs.get(id) as Belief;
    const files = this.#files === "workspace" ? { files: [fileOf(id), UPLOADED] } : {};
    belief.last = belief.last.then(() => this.#execute(id, belief, { end, turns, adds: ++this.#numbers, ...files }));
    void belief.last.catch(() => {});
  }

  async #execute(id: string, belief: Belief, program: FakeProgram): Promise<void> {
    const life = this.#life;
    const { sessions } = this.#server;
    // It goes on from what the last reply said, or, where that was pinned to a sandbox that has died, from what was stored.
    const bases = [belief.promised, belief.durable];
    const uploaded = this.#uploaded;
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
      belief.written = [...belief.written, String(program.adds)];
      return;
    }
    if (reply instanceof ClientError) {
      // Two sandboxes that are killed while they load it: nothing has run.
      const codes = ["store_unavailable", "interrupted", "session_unloadable"];
      // What exists in one sandbox alone cannot be loaded anew where others have changed the workspace.
      if (this.#files === "workspace" && belief.isPinned) codes.push("session_pinned");
      expect(codes).toContain(reply.code);
      return;
    }
    if (reply instanceof Error) throw reply;
    const result = reply as ExecutionResult;
    if (this.#files === "own") return this.#believe(belief, program.adds, result);
    if (result.success) {
      const { memory, seen } = result.result.parseAll() as FakeValue;
      expect(belief.written).toContain(seen[0]);
      expect(Number(seen[1] ?? 0)).toBeGreaterThanOrEqual(uploaded);
      belief.written = [String(program.adds)];
      return this.#believe(belief, program.adds, { ...result, result: JsonText.of(memory) });
    }
    // The reply tells whether its files are kept though its state is not.
    if (result.session?.reason?.split(" And before that: ")[0]?.endsWith("What it wrote to the workspace stays."))
      belief.written = [String(program.adds)];
    this.#believe(belief, program.adds, result);
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
    const { pool, store, workspaces } = this.#server;
    store.crash();
    workspaces.crash();
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
    const { store, workspaces, sessions } = this.#server;
    store.isAway = workspaces.isAway = false;
    for (const id of IDS) {
      const belief = this.beliefs.get(id) as Belief;
      await belief.last;
      if (this.#files === "workspace" && belief.isPinned) {
        await sessions.reset(PRINCIPAL, id, new AbortController().signal);
        Object.assign(belief, { promised: [], durable: [], isPinned: false, unanswered: [[]] });
      }
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
  const steady = ["well", "well", "dies", "lost"] as const;
  const stuck = ["well", "well", "stuck", "dies", "lost"] as const;
  test.each([
    ["is stored", steady, "own"],
    ["is stored, or said to be pinned", stuck, "own"],
    ["is stored, on a workspace that others change", steady, "workspace"],
    ["is stored, or said to be pinned, on a workspace that others change", stuck, "workspace"],
  ] as const)("what a reply speaks of %s: a crash at any step loses nothing of it", async (_, ends, files) => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 3 }), steps(ends, true), async (size, plan) => {
        const harness = new Harness(size, "commit", files);
        await harness.begin();
        for (const step of plan) await harness.do(step);
        await harness.end();
      }),
      { seed: SEED, numRuns: 20 },
    );
  });

  test.each(["own", "workspace"] as const)(
    "where the reply comes before the store has it, what is lost all the same is told with the next reply (%s files)",
    async (files) => {
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 1, max: 3 }), steps(steady, false), async (size, plan) => {
          const harness = new Harness(size, "after-reply", files);
          await harness.begin();
          for (const step of plan) await harness.do(step);
          await harness.end();
        }),
        { seed: SEED, numRuns: 20 },
      );
    },
  );
});
