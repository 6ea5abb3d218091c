import type { Verdict } from "../wire/guest-messages.ts";
import type { EnvironmentHealth } from "./environment-health.ts";

/** What a pool needs of a sandbox process; `Sandbox` is one. */
export interface PooledSandbox {
  /** By `performance.now()`, ms. */
  readonly startedAt: number;
  /** Why the process ended; null: it has not. */
  readonly endReason: string | null;
  /** Resolves with the reason when the process has ended. Never rejects. */
  readonly ended: Promise<string>;
  /** Resolves when what ran last is over, with what may be done with the sandbox now. Never rejects. */
  readonly idle: Promise<Verdict>;
  /** Forgets the session on it. Never rejects. */
  rewind(): Promise<Verdict>;
  kill(reason: string): void;
}

/**
 * `starting`: a process starts. `failed`: the last start failed, and the next waits. `warming`: a new sandbox warms up.
 * `idle`: it may be acquired. `busy`: an execution has it. `clearing`: it forgets the session that it held. `stopped`: the pool is stopping.
 */
export type SlotState = "starting" | "failed" | "warming" | "idle" | "busy" | "clearing" | "stopped";

/** What follows what; a slot that is replaced goes back to `starting` from anywhere. */
const NEXT: Readonly<Record<SlotState, readonly SlotState[]>> = {
  starting: ["warming", "idle", "failed"],
  failed: [],
  warming: ["idle"],
  idle: ["busy", "clearing"],
  busy: ["idle", "clearing"],
  clearing: ["idle"],
  stopped: [],
};

/** Node fires a timer that is set for longer at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** A session that a sandbox holds. */
export interface ResidentSession {
  /** Names the session in one state; chosen by its last user. */
  readonly key: string;
  /** Whose it is. */
  readonly principal: string;
  /** The session exists nowhere else. */
  readonly pinned: boolean;
}

export interface SlotOptions<S extends PooledSandbox> {
  /** The environment that a broken one's slots go back to. */
  defaultEnvironment(): string;
  /** Replace a sandbox that has run this many executions, or is this old. One with a pinned session may stay as long again. */
  readonly maxExecutions: number;
  readonly maxAgeMs: number;
  readonly health: EnvironmentHealth;
  start(environment: string): Promise<S>;
  /** What a new sandbox does before it is idle, if `mayWarmUp` says so then. */
  warmUp?(sandbox: S): Promise<Verdict>;
  mayWarmUp(environment: string): boolean;
  isStopping(): boolean;
  onReady(sandbox: S): void;
  /** A sandbox could not be started, or failed in a way that nothing foresaw. */
  onStartFailed(error: Error, environment: string): void;
  /** A sandbox was not fit to be used after its warm-up. */
  onSpoiled(environment: string): void;
  onRewound(): void;
  onDiscarded(reason: string): void;
  onEvicted(key: string): void;
  onIdle(): void;
}

/**
 * One place of a pool: it starts a sandbox, warms it up, gives it to one execution at a time, and replaces it when it must not
 * go on. Which execution that is, the pool decides.
 */
export class Slot<S extends PooledSandbox> {
  readonly #options: SlotOptions<S>;
  readonly #starts = new Set<Promise<unknown>>();
  /** Ends of the processes that were killed. */
  readonly #ends = new Set<Promise<unknown>>();
  #environment: string;
  #state: SlotState = "starting";
  #sandbox: S | null = null;
  #resident: ResidentSession | null = null;
  /** The last execution left the session that is on the sandbox now: it may stay. */
  #isRetained = false;
  #idleSinceMs = 0;
  /** Since when it has had a pinned session, from one execution of it to the next; null: it has none. */
  #pinnedSinceMs: number | null = null;
  /** Ends a pinned session that nothing uses. */
  #pinTimer: NodeJS.Timeout | undefined;
  /** Of the sandbox that it has now. */
  #executions = 0;

  constructor(options: SlotOptions<S>) {
    this.#options = options;
    this.#environment = options.defaultEnvironment();
  }

  get environment(): string {
    return this.#environment;
  }

  get state(): SlotState {
    return this.#state;
  }

  get sandbox(): S | null {
    return this.#sandbox;
  }

  get resident(): ResidentSession | null {
    return this.#resident;
  }

  get idleSinceMs(): number {
    return this.#idleSinceMs;
  }

  /** There is a sandbox to acquire: one that has just ended is not. */
  get isIdle(): boolean {
    return this.#state === "idle" && this.#sandbox?.endReason === null;
  }

  /** The sandbox will be idle without an execution having to end. */
  get isComing(): boolean {
    return this.#state === "starting" || this.#state === "warming" || this.#state === "clearing";
  }

  /** There is a sandbox that runs code, or will within milliseconds. */
  get isReady(): boolean {
    return this.#state === "warming" || this.#state === "idle" || this.#state === "busy";
  }

  /** Starts the first sandbox. @throws what its start throws; then the slot is not tried again. */
  async startOnce(environment: string): Promise<void> {
    this.#environment = environment;
    try {
      await this.#start();
    } catch (error) {
      this.#kill("it did not get ready");
      throw error;
    }
  }

  /** Starts a sandbox, and again after a pause until one starts. Never rejects. */
  async fill(environment: string): Promise<void> {
    this.#environment = environment;
    await this.guard(this.#fill());
  }

  /** Hands the idle sandbox to an execution. @throws {Error} if it is not idle: a defect, and nothing is handed out. */
  acquire(): S {
    const sandbox = this.#sandbox;
    if (sandbox === null) throw new Error(`a sandbox that is ${this.#state} was about to be acquired`);
    this.#enter("busy");
    clearTimeout(this.#pinTimer);
    this.#isRetained = false;
    this.#executions++;
    return sandbox;
  }

  /** The execution that has the sandbox leaves a session on it. */
  retain(key: string, principal: string): void {
    this.#forget();
    this.#resident = { key, principal, pinned: false };
    this.#isRetained = true;
  }

  /** The session on the sandbox exists nowhere else. */
  pin(): void {
    if (!this.#resident) return;
    this.#resident = { ...this.#resident, pinned: true };
    this.#pinnedSinceMs ??= performance.now();
  }

  /**
   * Has the sandbox forget its session: at once where it is idle. Where it is busy nothing says any more that it may keep the session,
   * so that `settle` clears it.
   */
  evict(): void {
    if (this.#state === "idle") void this.guard(this.#clear());
    else this.#forget();
  }

  /** What becomes of the sandbox once its execution is over. */
  async settle(verdict: Verdict): Promise<void> {
    if (verdict.state === "resident" && !this.#isRetained) await this.#clear();
    else this.#settle(verdict);
  }

  /** Ends the sandbox and starts another, of the environment given. */
  replace(environment: string, reason: string): void {
    this.#options.onDiscarded(reason);
    this.#forget();
    this.#kill(reason);
    void this.fill(environment);
  }

  /**
   * Waits for work in the background. It never rejects, since nothing that fails behind a request may end the server: the sandbox counts
   * as lost then, and is replaced.
   */
  async guard(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      this.#options.onStartFailed(toError(error), this.#environment);
      if (this.#options.isStopping() || this.#state === "starting") return;
      this.replace(this.#environment, "failed");
    }
  }

  /** Resolves when no process is left that starts or was killed: none must outlive the pool. */
  async settled(): Promise<void> {
    await Promise.allSettled([...this.#starts, ...this.#ends]);
  }

  #kill(reason: string): void {
    const sandbox = this.#sandbox;
    this.#sandbox = null;
    if (sandbox === null) return;
    sandbox.kill(reason);
    const { ended } = sandbox;
    this.#ends.add(ended);
    void ended.then(() => this.#ends.delete(ended));
  }

  #enter(state: SlotState): void {
    if (!NEXT[this.#state].includes(state))
      throw new Error(`a sandbox that was ${this.#state} cannot be ${state} next`);
    this.#state = state;
  }

  async #fill(): Promise<void> {
    const { health, isStopping } = this.#options;
    while (!isStopping()) {
      // From anywhere: what the slot had is gone.
      this.#state = "starting";
      const environment = this.#environment;
      const pauseMs = health.pauseMs(environment);
      if (pauseMs > 0) {
        this.#enter("failed");
        await new Promise((resolve) => setTimeout(resolve, pauseMs).unref());
        if (isStopping()) break;
        this.#state = "starting";
      }
      const startedAt = performance.now();
      try {
        await this.#start();
        return;
      } catch (error) {
        this.#kill("it did not get ready");
        this.#failed(environment, toError(error), performance.now() - startedAt);
        // Its slots go back to the default environment: who waits for the other one has been told.
        if (health.isBroken(environment)) this.#environment = this.#options.defaultEnvironment();
      }
    }
    this.#state = "stopped";
  }

  #failed(environment: string, error: Error, tookMs: number): void {
    this.#options.health.failed(environment, error, tookMs);
    this.#options.onStartFailed(error, environment);
  }

  async #start(): Promise<void> {
    const started = this.#options.start(this.#environment).then((sandbox) => this.#adopt(sandbox));
    this.#starts.add(started);
    try {
      await started;
    } finally {
      this.#starts.delete(started);
    }
  }

  async #adopt(sandbox: S): Promise<void> {
    const { health, isStopping, mayWarmUp, onReady } = this.#options;
    if (isStopping()) {
      sandbox.kill("the server is stopping");
      await sandbox.ended;
      return;
    }
    health.started(this.#environment);
    this.#sandbox = sandbox;
    this.#executions = 0;
    this.#pinnedSinceMs = null;
    onReady(sandbox);
    void this.guard(sandbox.ended.then((reason) => this.#ended(sandbox, reason)));
    if (!this.#options.warmUp || !mayWarmUp(this.#environment)) {
      this.#rest();
      return;
    }
    this.#enter("warming");
    this.#warmed(sandbox, await this.#options.warmUp(sandbox));
  }

  /** A sandbox that ends while it is idle. In any other state its verdict tells of it. */
  #ended(sandbox: S, reason: string): void {
    const { health, isStopping } = this.#options;
    if (this.#sandbox !== sandbox || this.#state !== "idle" || isStopping()) return;
    // A failed start: else a sandbox that ends as soon as it is ready would be started over and over, without a pause.
    if (this.#executions === 0)
      this.#failed(this.#environment, new Error(reason), performance.now() - sandbox.startedAt);
    this.replace(health.isBroken(this.#environment) ? this.#options.defaultEnvironment() : this.#environment, reason);
  }

  #warmed(sandbox: S, verdict: Verdict): void {
    if (this.#options.isStopping() || this.#sandbox !== sandbox) return;
    const reason = this.#retirement(sandbox, verdict);
    if (reason === null) {
      this.#rest();
      return;
    }
    this.#options.onSpoiled(this.#environment);
    this.replace(this.#environment, reason);
  }

  /** Makes the sandbox pristine again. */
  async #clear(): Promise<void> {
    const sandbox = this.#sandbox as S;
    this.#enter("clearing");
    this.#forget();
    this.#pinnedSinceMs = null;
    const verdict = await sandbox.rewind();
    if (this.#sandbox === sandbox) this.#settle(verdict);
  }

  #settle(verdict: Verdict): void {
    if (verdict.state === "pristine") this.#options.onRewound();
    const reason = this.#retirement(this.#sandbox as S, verdict);
    const isPinned = this.#resident?.pinned && verdict.state === "resident" && this.#sandbox?.endReason === null;
    if (!isPinned) this.#pinnedSinceMs = null;
    // A session that exists nowhere else outlives the sandbox's age, for as long again, not its process.
    const leftMs = this.#pinnedSinceMs === null ? 0 : this.#pinnedSinceMs + this.#options.maxAgeMs - performance.now();
    if (reason === null || leftMs > 0) {
      if (verdict.state === "pristine") this.#forget();
      if (leftMs > 0) this.#unpinAfter(leftMs);
      this.#rest();
    } else {
      this.replace(this.#environment, reason);
    }
  }

  /** A principal could keep a sandbox for ever with a session that it does not use. */
  #unpinAfter(leftMs: number): void {
    clearTimeout(this.#pinTimer);
    const sandbox = this.#sandbox;
    const end = () => {
      const isSame = this.#sandbox === sandbox && this.#state === "idle" && this.#resident?.pinned;
      if (isSame && !this.#options.isStopping()) this.replace(this.#environment, "served its time");
    };
    this.#pinTimer = setTimeout(end, Math.min(leftMs, MAX_TIMER_MS)).unref();
  }

  /** Why a sandbox must not go on; null: it may. */
  #retirement(sandbox: S, verdict: Verdict): string | null {
    if (verdict.state === "discard") return verdict.reason;
    // A process may end after its last message, while its execution is still being answered.
    if (sandbox.endReason !== null) return sandbox.endReason;
    if (this.#executions >= this.#options.maxExecutions) return "served its executions";
    if (performance.now() - sandbox.startedAt >= this.#options.maxAgeMs) return "served its time";
    return null;
  }

  #rest(): void {
    this.#enter("idle");
    this.#idleSinceMs = performance.now();
    this.#options.onIdle();
  }

  #forget(): void {
    clearTimeout(this.#pinTimer);
    const resident = this.#resident;
    this.#resident = null;
    this.#isRetained = false;
    if (resident) this.#options.onEvicted(resident.key);
  }
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
