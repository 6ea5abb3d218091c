import { EventEmitter } from "node:events";
import { ClientError, isQueueFull } from "../shared/errors.ts";
import { FairQueue } from "../shared/fair-queue.ts";
import { Tally } from "../shared/tally.ts";
import type { Verdict } from "../wire/guest-messages.ts";
import { Admission } from "./admission.ts";
import { EnvironmentHealth } from "./environment-health.ts";
import { Placement } from "./placement.ts";
import type { Assignment, PoolOptions, PoolStatus, UseOptions, Waiting } from "./pool-options.ts";
import { SandboxTenants } from "./sandbox-tenants.ts";
import { type PooledSandbox, Slot, type SlotState } from "./slot.ts";

interface PoolEvents<S> {
  /** A sandbox is ready. */
  ready: [sandbox: S];
  /** A sandbox could not be started, or failed in a way that nothing foresaw. */
  startFailed: [error: Error, environment: string];
  discarded: [reason: string];
  rewound: [];
  /** A sandbox no longer holds a session. */
  evicted: [key: string];
}

/** What an execution may do with the sandbox that it has, for as long as it has it. */
export interface Checkout {
  /** The sandbox still holds the session that was asked for. If false, it is pristine. */
  readonly isResident: boolean;
  /** Leaves the session `key` on the sandbox, until another execution waits for a sandbox. */
  retain(key: string): void;
  /** The session on the sandbox exists nowhere else: it is evicted last. */
  pin(): void;
  /** Resolves when the pool has the sandbox again. */
  readonly released: Promise<void>;
}

/**
 * Keeps sandboxes warm, and gives each to one execution at a time.
 *
 * A sandbox is released when it has rewound itself; one that must not be used again, has ended, or has served long enough is
 * replaced at once (`slot.ts`). A sandbox of one environment makes room for one of another only when a request waits for that.
 *
 * An environment that has not started yet, or failed when it started last, gets half of the slots at the most. If it is broken,
 * requests that wait for it are refused, and its slots go back to the default environment.
 *
 * Where sandboxes are not shared, one that has served a principal serves no other: it is ended when another needs its slot, or when
 * there are too few unused ones.
 *
 * A sandbox may retain the session it ran until a request waits: then the one unused for longest forgets its session. Those whose
 * session is pinned come last: when there is no other to wait for, or another principal waits and theirs has more than its share.
 */
export class SandboxPool<S extends PooledSandbox> extends EventEmitter<PoolEvents<S>> {
  readonly admission: Admission;
  readonly #options: PoolOptions<S>;
  readonly #slots: readonly Slot<S>[];
  readonly #placement: Placement<S>;
  readonly #queue: FairQueue<Waiting<S>>;
  readonly #tenants: SandboxTenants;
  /** How many unused sandboxes there are to be. */
  readonly #spares: number;
  /** Sandboxes that each principal has now. */
  readonly #inUse = new Tally<string>();
  readonly #discarded = new Map<string, number>();
  readonly #checkouts = new Set<Promise<unknown>>();
  /** Sandboxes whose execution has not been answered, and those of them whose end the pool did not wait for. */
  readonly #working = new Set<S>();
  readonly #cutOff = new Set<S>();
  /** Environments whose sandboxes are not to be used again after warming up. */
  readonly #cold = new Set<string>();
  readonly #health = new EnvironmentHealth();
  /** The environment of sandboxes that no other was asked of. */
  #environment: string;
  #lastAsked: string;
  #executions = 0;
  #started = 0;
  #stopping = false;

  constructor(options: PoolOptions<S>) {
    super();
    const { size, sharing = "all", queueLimit, environment, maxExecutions, maxAgeMs, warmUp } = options;
    this.#options = options;
    this.#environment = environment;
    this.#lastAsked = environment;
    this.#queue = new FairQueue(queueLimit);
    this.admission = new Admission({
      queue: this.#queue,
      hasIdle: () => this.#slots.some((slot) => slot.isIdle),
      maxQueuedPerPrincipal: options.maxQueuedPerPrincipal ?? Number.POSITIVE_INFINITY,
    });
    this.#tenants = new SandboxTenants(sharing);
    this.#spares = this.#tenants.sparesFor(size);
    const slot = () =>
      new Slot<S>({
        defaultEnvironment: () => this.#environment,
        maxExecutions,
        maxAgeMs,
        health: this.#health,
        start: (wanted) => options.start(wanted),
        ...(warmUp && { warmUp }),
        // While a request waits: it would wait for that as well, and pay with less where it needs one of the many functions only.
        mayWarmUp: (wanted) => this.#queue.length === 0 && !this.#cold.has(wanted),
        isStopping: () => this.#stopping,
        onReady: (sandbox) => {
          this.#started++;
          this.emit("ready", sandbox);
        },
        onStartFailed: (error, failed) => {
          this.emit("startFailed", error, failed);
          this.#refuse(failed);
        },
        // Else the next would warm up as well, and be replaced, and the next.
        onSpoiled: (spoiled) => this.#cold.add(spoiled),
        onRewound: () => this.emit("rewound"),
        onDiscarded: (reason) => this.#count(reason),
        onEvicted: (key) => this.emit("evicted", key),
        onIdle: () => {
          this.#dispatch();
          this.#keepSpares();
        },
      });
    this.#slots = Array.from({ length: size + this.#spares }, slot);
    this.#placement = new Placement(this.#slots, {
      tenants: this.#tenants,
      health: this.#health,
      defaultEnvironment: () => this.#environment,
      spares: this.#spares,
      inUseOf: (principal) => this.#inUse.of(principal),
      maxPerPrincipal: options.maxPerPrincipal ?? Number.POSITIVE_INFINITY,
    });
  }

  /**
   * Starts all sandboxes; resolves when the first is ready, and warm.
   *
   * @param environment of all of them; default: the options'.
   * @throws what the first start threw, if it failed.
   */
  async start(environment = this.#environment): Promise<void> {
    this.#environment = environment;
    this.#lastAsked = environment;
    const [first, ...others] = this.#slots;
    try {
      // The first alone: if it cannot start, one message says so, and nothing is left running.
      await first?.startOnce(environment);
    } catch (error) {
      this.#stopping = true;
      throw error;
    }
    for (const slot of others) void slot.fill(environment);
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
      if (slot.isIdle && slot.resident === null) slot.replace(environment, "environment");
    }
    try {
      await this.use({ environment, principal: "(start)", signal: undefined }, async () => {});
    } catch (error) {
      // So many wait that there are sandboxes at work.
      if (!isQueueFull(error)) throw error;
    }
  }

  get isReady(): boolean {
    return !this.#stopping && this.#slots.some((slot) => slot.isReady);
  }

  status(): PoolStatus {
    const count = (state: SlotState) => this.#slots.filter((slot) => slot.state === state).length;
    return {
      size: this.#options.size,
      idle: count("idle"),
      busy: count("busy"),
      starting: this.#slots.filter((slot) => slot.isComing).length,
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
  sandboxes(): S[] {
    return this.#slots.flatMap((slot) => slot.sandbox ?? []);
  }

  /**
   * Waits for a sandbox of `environment`, in fair turns among principals. The sandbox is the caller's alone until `use` has ended.
   *
   * @throws {ClientError} 429 if too many wait already, 503 if the server is stopping or the environment is broken.
   * @throws the signal's reason, if it is aborted before a sandbox is free.
   */
  async use<T>(options: UseOptions, use: (sandbox: S, checkout: Checkout) => Promise<T>): Promise<T> {
    if (this.#stopping) throw new ClientError("server_stopping");
    const { slot, sandbox, isResident, released, release } = await this.#acquire(options);
    let isReleased = false;
    const ifHeld = (act: () => void) => {
      if (!isReleased && slot.sandbox === sandbox) act();
    };
    const work = (async () => {
      if (this.#cutOff.has(sandbox)) throw new ClientError("server_stopping");
      return await use(sandbox, {
        isResident,
        released,
        retain: (key) => ifHeld(() => slot.retain(key, options.principal)),
        pin: () => ifHeld(() => slot.pin()),
      });
    })();
    const takeBack = async () => {
      const verdict = await sandbox.idle;
      isReleased = true;
      await this.#release(slot, sandbox, verdict, options.principal);
    };
    void slot.guard(work.then(takeBack, takeBack)).then(release);
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
    await Promise.race([Promise.allSettled(this.#checkouts), timedOut]);
    const sandboxes = this.sandboxes();
    for (const sandbox of this.#working) this.#cutOff.add(sandbox);
    for (const sandbox of sandboxes) sandbox.kill("the server is stopping");
    await Promise.all(sandboxes.map((sandbox) => sandbox.ended));
    await Promise.allSettled([...this.#checkouts, ...this.#slots.map((slot) => slot.settled())]);
  }

  /** Whether an idle sandbox still holds the session. */
  holds(key: string): boolean {
    return this.#holding(key) !== undefined;
  }

  /** Whether a sandbox, idle or not, still holds the session: if not, `evicted` has been emitted. */
  keeps(key: string): boolean {
    return this.#slots.some((slot) => slot.resident?.key === key);
  }

  /** Has the sandbox that holds the session forget it. */
  evict(key: string): void {
    this.#slots.find(({ resident }) => resident?.key === key)?.evict();
  }

  #acquire({ environment, principal, signal, onWait, resident }: UseOptions): Promise<Assignment<S>> {
    signal?.throwIfAborted();
    const refusal = this.#health.refusal(environment);
    if (refusal) throw refusal;
    if (this.#mayUse(principal)) {
      const free =
        this.#holding(resident) ??
        (this.#queue.length === 0 ? this.#placement.pristine(environment, principal) : undefined);
      if (free) {
        const assigned = this.#assign(free, principal);
        this.#keepSpares();
        return Promise.resolve(assigned);
      }
    }
    this.admission.check(principal);
    // Only now: a request that is refused has not begun to wait.
    onWait?.();
    const { promise, resolve, reject } = Promise.withResolvers<Assignment<S>>();
    const waiting: Waiting<S> = { principal, environment, resident, resolve, reject };
    this.#queue.push(principal, waiting);
    const onAbort = () => {
      if (this.#queue.remove(principal, waiting)) reject(signal?.reason);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#dispatch();
    return promise.finally(() => signal?.removeEventListener("abort", onAbort));
  }

  /** Gives idle sandboxes to the requests whose turn it is, and turns idle ones of an environment that no request waits for into others. */
  #dispatch(): void {
    // Also where the queue is long: under overload most come while nothing is idle.
    if (this.#queue.length === 0 || !this.#slots.some((slot) => slot.isIdle)) return;
    const claimed = new Map<string, number>();
    for (const waiting of [...this.#queue.inOrder()]) {
      if (!this.#mayUse(waiting.principal)) continue;
      // Where it had to wait for its principal's share, what it left is there still.
      const fitting =
        this.#holding(waiting.resident) ?? this.#placement.pristine(waiting.environment, waiting.principal);
      if (fitting) {
        this.#queue.take((other) => other === waiting);
        this.admission.left();
        waiting.resolve(this.#assign(fitting, waiting.principal));
        continue;
      }
      const claims = (claimed.get(waiting.environment) ?? 0) + 1;
      claimed.set(waiting.environment, claims);
      const { principal } = waiting;
      const isComing = ({ isComing, environment, sandbox }: Slot<S>) =>
        isComing && environment === waiting.environment && this.#tenants.mayServe(sandbox, principal);
      const spare = this.#placement.spare(waiting.environment, principal);
      if (claims > this.#slots.filter(isComing).length && spare) {
        const isOthers = !this.#tenants.mayServe(spare.sandbox, principal);
        if (!isOthers && spare.environment === waiting.environment) spare.evict();
        else if (this.#placement.mayStart(waiting.environment))
          spare.replace(waiting.environment, isOthers ? "principal" : "environment");
      }
      if (!this.#slots.some((slot) => slot.isIdle)) break;
    }
  }

  /** The idle sandbox that holds a session. */
  #holding(key: string | undefined): Slot<S> | undefined {
    return key === undefined ? undefined : this.#slots.find((slot) => slot.isIdle && slot.resident?.key === key);
  }

  /** Refuses the requests that wait for an environment, if it is broken. */
  #refuse(environment: string): void {
    const refusal = this.#health.refusal(environment);
    if (refusal === null) return;
    for (;;) {
      const waiting = this.#queue.take((other) => other.environment === environment);
      if (!waiting) return;
      waiting.reject(refusal);
    }
  }

  #mayUse(principal: string): boolean {
    if (this.#spares > 0 && this.#slots.filter(({ state }) => state === "busy").length >= this.#options.size)
      return false;
    return this.#inUse.of(principal) < (this.#options.maxPerPrincipal ?? Number.POSITIVE_INFINITY);
  }

  #assign(slot: Slot<S>, principal: string): Assignment<S> {
    this.#tenants.settle(slot.sandbox as S, principal);
    this.#lastAsked = slot.environment;
    const isResident = slot.resident !== null;
    const sandbox = slot.acquire();
    this.#executions++;
    this.#inUse.add(principal);
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    this.#working.add(sandbox);
    this.#checkouts.add(released);
    void released.then(() => this.#checkouts.delete(released));
    return { slot, sandbox, isResident, released, release };
  }

  /** Has enough unused sandboxes again, where there are to be any. */
  #keepSpares(): void {
    if (this.#spares === 0 || this.#stopping) return;
    const slot = this.#placement.toBecomeUnused();
    if (!slot) return;
    const { spareEnvironment = (asked) => asked } = this.#options;
    const wanted = spareEnvironment(this.#lastAsked);
    slot.replace(this.#placement.mayStart(wanted) ? wanted : this.#environment, "principal");
  }

  async #release(slot: Slot<S>, sandbox: S, verdict: Verdict, principal: string): Promise<void> {
    if (verdict.state !== "discard") this.#health.used(slot.environment);
    this.#inUse.remove(principal);
    // The sandbox was replaced meanwhile; what else waits of this principal may use another one now.
    if (slot.sandbox !== sandbox) return this.#dispatch();
    await slot.settle(verdict);
    // One less is busy, which a request may have waited for.
    if (this.#spares > 0) {
      this.#dispatch();
      this.#keepSpares();
    }
  }

  #count(reason: string): void {
    // Bounded: a reason may carry what a process printed.
    const kind = reason.split(":", 1)[0] as string;
    if (this.#discarded.has(kind) || this.#discarded.size < 50) {
      this.#discarded.set(kind, (this.#discarded.get(kind) ?? 0) + 1);
    }
    this.emit("discarded", reason);
  }
}
