import { EventEmitter } from "node:events";
import type { Sandbox } from "../sandbox/sandbox.ts";
import { ClientError, isQueueFull } from "../shared/errors.ts";
import type { Verdict } from "../wire/guest-messages.ts";
import { type BrokenEnvironment, EnvironmentHealth } from "./environment-health.ts";
import { FairQueue } from "./fair-queue.ts";
import { SandboxTenants, type Sharing } from "./sandbox-tenants.ts";

export interface PoolOptions {
  /** Sandboxes kept warm, and most that run code at a time. */
  readonly size: number;
  /** Default `all`. With `principal` there are further sandboxes, half of `size`, that nobody has used yet. */
  readonly sharing?: Sharing;
  /** Which environment a sandbox that nobody has asked for is to have, by the one that was asked for last; default: that one. */
  readonly spareEnvironment?: (lastAsked: string) => string;
  /** Most that may wait for one. */
  readonly queueLimit: number;
  /** Most that one principal may have running, and waiting; default: all there is. */
  readonly maxPerPrincipal?: number;
  readonly maxQueuedPerPrincipal?: number;
  /** Replace a sandbox that has run this many executions, or is this old. */
  readonly maxExecutions: number;
  readonly maxAgeMs: number;
  /** Environment that sandboxes are started with until another is asked for. */
  readonly environment: string;
  readonly start: (environment: string) => Promise<Sandbox>;
  /** What a new sandbox does before it is lent, unless somebody waits for it. */
  readonly warmUp?: (sandbox: Sandbox) => Promise<Verdict>;
}

/** `warming`: a new sandbox warms up. `clearing`: an idle one forgets the session it held. */
type SlotState = "starting" | "warming" | "idle" | "busy" | "clearing" | "failed";
/** The sandbox is going to be idle by itself. */
const COMING: ReadonlySet<SlotState> = new Set(["starting", "warming", "clearing"]);
/** There is a sandbox that runs code, or will within milliseconds. */
const READY: ReadonlySet<SlotState> = new Set(["warming", "idle", "busy"]);

/** A session that a sandbox holds. */
interface Resident {
  /** Names the session in one state; what the last user gave. */
  readonly key: string;
  /** It exists nowhere else. */
  pinned: boolean;
}

interface Slot {
  environment: string;
  state: SlotState;
  sandbox: Sandbox | null;
  resident: Resident | null;
  idleSince: number;
  /** Of the sandbox that it has now. */
  executions: number;
}

interface Waiting {
  readonly principal: string;
  readonly environment: string;
  readonly resolve: (slot: Slot) => void;
  readonly reject: (error: Error) => void;
}

export interface PoolStatus {
  readonly size: number;
  readonly idle: number;
  readonly busy: number;
  readonly starting: number;
  /** Idle, and holding a session that may want it again. */
  readonly resident: number;
  readonly failed: number;
  readonly queued: number;
  readonly queueLimit: number;
  /** Environments whose sandboxes do not start. */
  readonly broken: readonly BrokenEnvironment[];
  readonly executions: number;
  readonly started: number;
  readonly discarded: Readonly<Record<string, number>>;
}

interface PoolEvents {
  /** A sandbox is ready. */
  ready: [sandbox: Sandbox];
  /** A sandbox could not be started, or failed in a way that nothing foresaw. */
  startFailed: [error: Error, environment: string];
  discarded: [reason: string];
  rewound: [];
  /** A sandbox no longer holds a session. */
  evicted: [key: string];
}

/** A sandbox that is the caller's alone until `use`'s callback has ended. */
export type UseSandbox<T> = (sandbox: Sandbox, loan: Loan) => Promise<T>;

export interface Loan {
  /** The sandbox still holds the session that was asked for. If false, it is pristine. */
  readonly isResident: boolean;
  /** The sandbox has the session `key` on it now, and may keep it until somebody else waits for a sandbox. */
  keep(key: string): void;
  /** What the sandbox holds cannot be had back: it is the last to be taken. */
  pin(): void;
  /** Resolves when the sandbox has been given back. */
  readonly returned: Promise<void>;
}

export interface UseOptions {
  readonly environment: string;
  readonly principal: string;
  readonly signal: AbortSignal | undefined;
  /** Called if there is no sandbox at once. */
  readonly onWait?: (() => void) | undefined;
  /** Key of a session that a sandbox may still hold. */
  readonly resident?: string;
}

/**
 * Keeps sandboxes warm and lends each to one execution at a time.
 *
 * A sandbox comes back when it has rewound itself; one that must not be used again, has ended, or has served long enough is
 * replaced at once. A sandbox of one environment makes room for one of another only when somebody waits for that.
 *
 * An environment that has not started yet, or failed when it started last, gets half of the places at the most. If it is broken,
 * those who wait for it are told so, and its places go back to the default environment.
 *
 * Where sandboxes are not shared, one that has served a principal serves no other: it is ended when another needs its place, or when
 * there are too few that nobody has used.
 *
 * A sandbox may keep the session it ran until somebody waits: then the one unused for longest forgets its session. Those
 * whose session is pinned come last, when there is no other sandbox to wait for.
 */
export class SandboxPool extends EventEmitter<PoolEvents> {
  readonly #options: PoolOptions;
  readonly #slots: Slot[];
  readonly #queue: FairQueue<Waiting>;
  readonly #tenants: SandboxTenants;
  /** How many sandboxes that nobody has used yet there are to be. */
  readonly #spares: number;
  /** Sandboxes that each principal has now; none of zero. */
  readonly #inUse = new Map<string, number>();
  readonly #discarded = new Map<string, number>();
  readonly #borrowed = new Set<Promise<unknown>>();
  /** Sandboxes whose borrower has not come to an end, and those whose end the pool did not wait for. */
  readonly #working = new Set<Sandbox>();
  readonly #cutOff = new Set<Sandbox>();
  readonly #starting = new Set<Promise<unknown>>();
  /** Environments whose sandboxes are not to be used again after warming up. */
  readonly #cold = new Set<string>();
  readonly #health = new EnvironmentHealth();
  /** Which one sandboxes have that nothing else has been asked of. */
  #environment: string;
  #lastAsked: string;
  #executions = 0;
  #started = 0;
  #stopping = false;

  constructor(options: PoolOptions) {
    super();
    this.#options = options;
    this.#environment = options.environment;
    this.#lastAsked = options.environment;
    this.#queue = new FairQueue(options.queueLimit);
    this.#tenants = new SandboxTenants(options.sharing ?? "all");
    this.#spares = this.#tenants.sparesFor(options.size);
    this.#slots = Array.from({ length: options.size + this.#spares }, () => ({
      environment: options.environment,
      state: "starting" as const,
      sandbox: null,
      resident: null,
      idleSince: 0,
      executions: 0,
    }));
  }

  /**
   * Starts all sandboxes; resolves when the first is ready, and warm.
   *
   * @param environment of all of them; default: the options'.
   * @throws whatever the first start threw, if it failed.
   */
  async start(environment = this.#environment): Promise<void> {
    this.#environment = environment;
    this.#lastAsked = environment;
    for (const slot of this.#slots) slot.environment = environment;
    const first = this.#slots[0] as Slot;
    try {
      // The first alone: if it cannot start, one message says so, and nothing is left running.
      await this.#startInto(first);
    } catch (error) {
      this.#stopping = true;
      throw error;
    }
    for (const slot of this.#slots.slice(1)) void this.#inBackground(this.#fill(slot), slot);
  }

  /**
   * Has sandboxes of another environment from now on; resolves when one is ready.
   *
   * @throws {ClientError} 503 if none starts, or the server is stopping.
   */
  async prefer(environment: string): Promise<void> {
    if (environment === this.#environment) return;
    this.#environment = environment;
    this.#lastAsked = environment;
    // Those that start or are busy now make room once sandboxes of the other environment are waited for.
    for (const slot of this.#slots) {
      if (slot.state === "idle" && slot.resident === null) this.#replace(slot, environment, "environment");
    }
    try {
      await this.use({ environment, principal: "(start)", signal: undefined }, async () => {});
    } catch (error) {
      // So many wait that there are sandboxes at work.
      if (!isQueueFull(error)) throw error;
    }
  }

  get isReady(): boolean {
    return !this.#stopping && this.#slots.some(({ state }) => READY.has(state));
  }

  status(): PoolStatus {
    const count = (state: SlotState) => this.#slots.filter((slot) => slot.state === state).length;
    return {
      size: this.#options.size,
      idle: count("idle"),
      busy: count("busy"),
      starting: this.#slots.filter(({ state }) => COMING.has(state)).length,
      resident: this.#slots.filter((slot) => slot.state === "idle" && slot.resident !== null).length,
      failed: count("failed"),
      queued: this.#queue.length,
      queueLimit: this.#options.queueLimit,
      broken: this.#health.broken(),
      executions: this.#executions,
      started: this.#started,
      discarded: Object.fromEntries(this.#discarded),
    };
  }

  /** The sandboxes that are alive now. */
  sandboxes(): Sandbox[] {
    return this.#slots.flatMap((slot) => slot.sandbox ?? []);
  }

  /**
   * Waits for a sandbox of `environment`, in fair turns among principals, and lends it to `use`.
   *
   * @throws {ClientError} 429 if too many wait already, 503 if the server is stopping or the environment is broken.
   * @throws the signal's reason, if it is aborted before a sandbox is free.
   */
  async use<T>(options: UseOptions, use: UseSandbox<T>): Promise<T> {
    if (this.#stopping) throw new ClientError("server_stopping");
    const slot = await this.#acquire(options);
    const sandbox = slot.sandbox as Sandbox;
    this.#executions++;
    slot.executions++;
    const isResident = slot.resident !== null;
    const { promise: returned, resolve: giveBack } = Promise.withResolvers<void>();
    this.#working.add(sandbox);
    const work = use(sandbox, {
      isResident,
      returned,
      keep: (key) => {
        this.#forget(slot);
        slot.resident = { key, pinned: false };
      },
      pin: () => {
        if (slot.resident) slot.resident.pinned = true;
      },
    });
    const done = this.#inBackground(
      work.then(
        () => this.#release(slot, sandbox, options.principal),
        () => this.#release(slot, sandbox, options.principal),
      ),
      slot,
    ).then(() => {
      giveBack();
      this.#borrowed.delete(done);
    });
    this.#borrowed.add(done);
    try {
      const result = await work;
      if (this.#cutOff.has(sandbox)) throw new ClientError("server_stopping");
      return result;
    } finally {
      this.#working.delete(sandbox);
    }
  }

  /** Lets what runs end for up to `graceMs`, refuses everything new, tells what was cut off so, and leaves no process behind. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    for (;;) {
      const waiting = this.#queue.take(() => true);
      if (!waiting) break;
      waiting.reject(new ClientError("server_stopping"));
    }
    const grace = AbortSignal.timeout(Math.max(1, graceMs));
    const timedOut = new Promise((resolve) => grace.addEventListener("abort", resolve, { once: true }));
    await Promise.race([Promise.allSettled(this.#borrowed), timedOut]);
    const sandboxes = this.sandboxes();
    for (const sandbox of this.#working) this.#cutOff.add(sandbox);
    for (const sandbox of sandboxes) sandbox.kill("the server is stopping");
    await Promise.all(sandboxes.map((sandbox) => sandbox.ended));
    await Promise.allSettled([...this.#borrowed, ...this.#starting]);
  }

  /** Whether an idle sandbox still holds the session. */
  holds(key: string): boolean {
    return this.#slots.some((slot) => slot.state === "idle" && slot.resident?.key === key);
  }

  /** Whether a sandbox, idle or not, still holds the session: if not, `evicted` has been emitted. */
  keeps(key: string): boolean {
    return this.#slots.some((slot) => slot.resident?.key === key);
  }

  /** Has the sandbox that holds the session forget it. */
  evict(key: string): void {
    const slot = this.#slots.find(({ resident }) => resident?.key === key);
    if (!slot) return;
    if (slot.state === "idle") void this.#inBackground(this.#clear(slot), slot);
    // Else `#release` does, since nothing says any more that it may keep it.
    else this.#forget(slot);
  }

  #acquire({ environment, principal, signal, onWait, resident }: UseOptions): Promise<Slot> {
    signal?.throwIfAborted();
    const refusal = this.#health.refusal(environment);
    if (refusal) throw refusal;
    if (this.#mayUse(principal)) {
      const own = this.#slots.find((slot) => slot.state === "idle" && resident && slot.resident?.key === resident);
      const free = own ?? (this.#queue.length === 0 ? this.#pristine(environment, principal) : undefined);
      if (free) {
        this.#lend(free, principal);
        this.#keepSpares();
        return Promise.resolve(free);
      }
    }
    if (this.#queue.isFull) {
      throw new ClientError("queue_full");
    }
    if (this.#queue.lengthOf(principal) >= (this.#options.maxQueuedPerPrincipal ?? Number.POSITIVE_INFINITY)) {
      throw new ClientError("principal_queue_full");
    }
    const { promise, resolve, reject } = Promise.withResolvers<Slot>();
    const waiting: Waiting = { principal, environment, resolve, reject };
    this.#queue.push(principal, waiting);
    onWait?.();
    const onAbort = () => {
      if (this.#queue.remove(principal, waiting)) reject(signal?.reason);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#dispatch();
    return promise.finally(() => signal?.removeEventListener("abort", onAbort));
  }

  /** Gives idle sandboxes to those whose turn it is, and turns idle ones of an environment nobody waits for into others. */
  #dispatch(): void {
    if (this.#queue.length === 0) return;
    const claimed = new Map<string, number>();
    for (const waiting of [...this.#queue.inOrder()]) {
      if (!this.#mayUse(waiting.principal)) continue;
      const fitting = this.#pristine(waiting.environment, waiting.principal);
      if (fitting) {
        this.#queue.take((other) => other === waiting);
        this.#lend(fitting, waiting.principal);
        waiting.resolve(fitting);
        continue;
      }
      const claims = (claimed.get(waiting.environment) ?? 0) + 1;
      claimed.set(waiting.environment, claims);
      const { principal } = waiting;
      const isComing = ({ state, environment, sandbox }: Slot) =>
        COMING.has(state) && environment === waiting.environment && this.#tenants.mayServe(sandbox, principal);
      const spare = this.#spare(waiting.environment, principal);
      if (claims > this.#slots.filter(isComing).length && spare) {
        const isOthers = !this.#tenants.mayServe(spare.sandbox, principal);
        if (!isOthers && spare.environment === waiting.environment) void this.#inBackground(this.#clear(spare), spare);
        else if (this.#mayStart(waiting.environment))
          this.#replace(spare, waiting.environment, isOthers ? "principal" : "environment");
      }
      if (!this.#slots.some((slot) => slot.state === "idle")) break;
    }
  }

  /** Whether one more place may be spent on starting sandboxes of an environment. */
  #mayStart(environment: string): boolean {
    if (environment === this.#environment || this.#health.isProven(environment)) return true;
    const trying = this.#slots.filter(
      (slot) =>
        (slot.state === "starting" || slot.state === "failed") &&
        slot.environment !== this.#environment &&
        !this.#health.isProven(slot.environment),
    );
    return trying.length < Math.max(1, Math.floor(this.#slots.length / 2));
  }

  /** Tells those who wait for an environment that is broken. */
  #refuse(environment: string): void {
    const refusal = this.#health.refusal(environment);
    if (refusal === null) return;
    for (;;) {
      const waiting = this.#queue.take((other) => other.environment === environment);
      if (!waiting) return;
      waiting.reject(refusal);
    }
  }

  /** Nothing that fails behind a request may end the server: the place is taken as one whose sandbox is lost. */
  /** Never rejects. */
  #inBackground(work: Promise<void>, slot: Slot): Promise<void> {
    return work.catch((error: unknown) => {
      this.emit("startFailed", toError(error), slot.environment);
      if (this.#stopping || slot.state === "starting") return;
      this.#replace(slot, slot.environment, "failed");
    });
  }

  #mayUse(principal: string): boolean {
    if (this.#spares > 0 && this.#slots.filter(({ state }) => state === "busy").length >= this.#options.size)
      return false;
    return (this.#inUse.get(principal) ?? 0) < (this.#options.maxPerPrincipal ?? Number.POSITIVE_INFINITY);
  }

  #lend(slot: Slot, principal: string): void {
    this.#tenants.settle(slot.sandbox as Sandbox, principal);
    this.#lastAsked = slot.environment;
    slot.state = "busy";
    this.#inUse.set(principal, (this.#inUse.get(principal) ?? 0) + 1);
  }

  #giveBack(principal: string): void {
    const left = (this.#inUse.get(principal) ?? 0) - 1;
    if (left > 0) this.#inUse.set(principal, left);
    else this.#inUse.delete(principal);
  }

  /** One that the principal has used before rather than one that nobody has. */
  #pristine(environment: string, principal: string): Slot | undefined {
    const fitting = this.#slots.filter(
      (slot) =>
        slot.state === "idle" &&
        !slot.resident &&
        slot.environment === environment &&
        this.#tenants.mayServe(slot.sandbox, principal),
    );
    return fitting.find(({ sandbox }) => !this.#tenants.isUnused(sandbox)) ?? fitting[0];
  }

  /** The idle sandbox that can best be had for `environment`, although it holds a session, or is of another one or another principal. */
  #spare(environment: string, principal: string): Slot | undefined {
    const fits = (slot: Slot) => slot.environment === environment && this.#tenants.mayServe(slot.sandbox, principal);
    return this.#replaceable().sort((a, b) => {
      const fit = Number(fits(b)) - Number(fits(a));
      const unused = Number(this.#tenants.isUnused(a.sandbox)) - Number(this.#tenants.isUnused(b.sandbox));
      const several = this.#isOneOfSeveral(b) - this.#isOneOfSeveral(a);
      return fit || unused || several || a.idleSince - b.idleSince;
    })[0];
  }

  /** Idle sandboxes; of those whose session is pinned only where there are no others to wait for. */
  #replaceable(): Slot[] {
    const everyOneIsPinned = this.#slots.every((slot) => slot.resident?.pinned === true);
    return this.#slots.filter((slot) => slot.state === "idle" && (everyOneIsPinned || slot.resident?.pinned !== true));
  }

  /**
   * Where there are too few that nobody has used, ends one of a principal that has several, or else the one that was used least
   * recently.
   */
  #keepSpares(): void {
    if (this.#spares === 0 || this.#stopping) return;
    const unused = this.#slots.filter(
      ({ state, sandbox }) => (state === "idle" || COMING.has(state)) && this.#tenants.isUnused(sandbox),
    );
    if (unused.length >= this.#spares) return;
    const [first] = this.#replaceable()
      .filter(({ sandbox }) => !this.#tenants.isUnused(sandbox))
      .sort(
        (a, b) =>
          this.#isOneOfSeveral(b) - this.#isOneOfSeveral(a) ||
          Number(a.resident !== null) - Number(b.resident !== null) ||
          a.idleSince - b.idleSince,
      );
    if (!first) return;
    // One that is busy still will be idle soon, and another principal keeps its only one.
    if (this.#isOneOfSeveral(first) === 0 && this.#slots.some((slot) => this.#isOneOfSeveral(slot) === 1)) return;
    const { spareEnvironment = (asked) => asked } = this.#options;
    const wanted = spareEnvironment(this.#lastAsked);
    this.#replace(first, this.#mayStart(wanted) ? wanted : this.#environment, "principal");
  }

  #isOneOfSeveral({ sandbox }: Slot): number {
    return Number(this.#tenants.countOf(sandbox, this.sandboxes()) > 1);
  }

  /** Makes an idle sandbox pristine again. */
  async #clear(slot: Slot): Promise<void> {
    const sandbox = slot.sandbox as Sandbox;
    slot.state = "clearing";
    this.#forget(slot);
    const verdict = await sandbox.rewind();
    if (slot.sandbox === sandbox) this.#settle(slot, sandbox, verdict);
  }

  #forget(slot: Slot): void {
    const { resident } = slot;
    slot.resident = null;
    if (resident) this.emit("evicted", resident.key);
  }

  async #release(slot: Slot, sandbox: Sandbox, principal: string): Promise<void> {
    const verdict = await sandbox.idle;
    if (verdict.state !== "discard") this.#health.used(slot.environment);
    this.#giveBack(principal);
    // Its place has been taken; whoever this principal still has waiting may use another one now.
    if (slot.sandbox !== sandbox) return this.#dispatch();
    if (verdict.state === "resident" && slot.resident === null) await this.#clear(slot);
    else this.#settle(slot, sandbox, verdict);
    // One less is in use, which those may have waited for who have a sandbox to go to.
    if (this.#spares > 0) {
      this.#dispatch();
      this.#keepSpares();
    }
  }

  /** What becomes of a sandbox that has nothing to do. */
  #settle(slot: Slot, sandbox: Sandbox, verdict: Verdict): void {
    if (verdict.state === "pristine") this.emit("rewound");
    const reason = this.#retirement(slot, sandbox, verdict);
    if (reason === null || (slot.resident?.pinned && verdict.state === "resident")) {
      if (verdict.state === "pristine") this.#forget(slot);
      this.#rest(slot);
    } else {
      this.#replace(slot, slot.environment, reason);
    }
  }

  #rest(slot: Slot): void {
    slot.state = "idle";
    slot.idleSince = performance.now();
    this.#dispatch();
    this.#keepSpares();
  }

  #retirement({ executions }: Slot, sandbox: Sandbox, verdict: Verdict): string | null {
    if (verdict.state === "discard") return verdict.reason;
    // It may have ended after its last word, while its borrower was still at work.
    if (sandbox.endReason !== null) return sandbox.endReason;
    if (executions >= this.#options.maxExecutions) return "served its executions";
    if (performance.now() - sandbox.startedAt >= this.#options.maxAgeMs) return "served its time";
    return null;
  }

  #replace(slot: Slot, environment: string, reason: string): void {
    this.#count(reason);
    this.#forget(slot);
    slot.sandbox?.kill(reason);
    slot.sandbox = null;
    slot.environment = environment;
    void this.#inBackground(this.#fill(slot), slot);
  }

  #count(reason: string): void {
    // Bounded: a reason may carry what a process printed.
    const kind = reason.split(":", 1)[0] as string;
    if (this.#discarded.has(kind) || this.#discarded.size < 50) {
      this.#discarded.set(kind, (this.#discarded.get(kind) ?? 0) + 1);
    }
    this.emit("discarded", reason);
  }

  async #fill(slot: Slot): Promise<void> {
    while (!this.#stopping) {
      slot.state = "starting";
      const { environment } = slot;
      const pauseMs = this.#health.pauseMs(environment);
      if (pauseMs > 0) await this.#pause(slot, pauseMs);
      const startedAt = performance.now();
      try {
        await this.#startInto(slot);
        return;
      } catch (error) {
        slot.sandbox?.kill("it did not get ready");
        slot.sandbox = null;
        this.#failed(environment, toError(error), performance.now() - startedAt);
        // Its places go back to the environment that most want; who wants the other one has been told.
        if (this.#health.isBroken(environment)) slot.environment = this.#environment;
      }
    }
  }

  async #pause(slot: Slot, pauseMs: number): Promise<void> {
    slot.state = "failed";
    await new Promise((resolve) => setTimeout(resolve, pauseMs).unref());
    slot.state = "starting";
  }

  #failed(environment: string, error: Error, tookMs: number): void {
    this.#health.failed(environment, error, tookMs);
    this.emit("startFailed", error, environment);
    this.#refuse(environment);
  }

  /** `stop` waits for it: a process that was not ready yet must not outlive the pool either. */
  async #startInto(slot: Slot): Promise<void> {
    const started = this.#options.start(slot.environment).then((sandbox) => this.#adopt(slot, sandbox));
    this.#starting.add(started);
    try {
      await started;
    } finally {
      this.#starting.delete(started);
    }
  }

  async #adopt(slot: Slot, sandbox: Sandbox): Promise<void> {
    if (this.#stopping) {
      sandbox.kill("the server is stopping");
      await sandbox.ended;
      return;
    }
    this.#started++;
    this.#health.started(slot.environment);
    slot.sandbox = sandbox;
    slot.executions = 0;
    this.emit("ready", sandbox);
    // One that ends while nobody uses it; with somebody on it, `#release` sees to it.
    const ended = sandbox.ended.then((reason) => {
      if (slot.sandbox !== sandbox || slot.state !== "idle" || this.#stopping) return;
      // Else one that ends as soon as it is ready would be started over and over, without a pause.
      if (slot.executions === 0)
        this.#failed(slot.environment, new Error(reason), performance.now() - sandbox.startedAt);
      this.#replace(slot, this.#health.isBroken(slot.environment) ? this.#environment : slot.environment, reason);
    });
    void this.#inBackground(ended, slot);
    const { warmUp } = this.#options;
    // Who waits would wait for that, and pay with less where it is one of many things that are not compiled yet.
    if (!warmUp || this.#queue.length > 0 || this.#cold.has(slot.environment)) {
      this.#rest(slot);
      return;
    }
    slot.state = "warming";
    this.#warmed(slot, sandbox, await warmUp(sandbox));
  }

  #warmed(slot: Slot, sandbox: Sandbox, verdict: Verdict): void {
    if (this.#stopping || slot.sandbox !== sandbox) return;
    const reason = this.#retirement(slot, sandbox, verdict);
    if (reason === null) {
      this.#rest(slot);
      return;
    }
    // Else the next would warm up as well, and be replaced, and the next.
    this.#cold.add(slot.environment);
    this.#replace(slot, slot.environment, reason);
  }
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
