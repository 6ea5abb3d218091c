import type { EnvironmentHealth } from "./environment-health.ts";
import type { SandboxTenants } from "./sandbox-tenants.ts";
import type { PooledSandbox, Slot } from "./slot.ts";

/** Which slot is best for a request, and which is best given up for it. It decides only; the pool acts. */
export class Placement<S extends PooledSandbox> {
  readonly #slots: readonly Slot<S>[];
  readonly #tenants: SandboxTenants;
  readonly #health: EnvironmentHealth;
  readonly #defaultEnvironment: () => string;
  /** How many unused sandboxes there are to be. */
  readonly #spares: number;
  readonly #inUseOf: (principal: string) => number;
  readonly #maxPerPrincipal: number;

  constructor(
    slots: readonly Slot<S>[],
    options: {
      readonly tenants: SandboxTenants;
      readonly health: EnvironmentHealth;
      /** The environment of sandboxes that no other was asked of. */
      readonly defaultEnvironment: () => string;
      readonly spares: number;
      /** How many sandboxes run a principal's executions now. */
      readonly inUseOf: (principal: string) => number;
      /** A principal's share. */
      readonly maxPerPrincipal: number;
    },
  ) {
    this.#slots = slots;
    this.#tenants = options.tenants;
    this.#health = options.health;
    this.#defaultEnvironment = options.defaultEnvironment;
    this.#spares = options.spares;
    this.#inUseOf = options.inUseOf;
    this.#maxPerPrincipal = options.maxPerPrincipal;
  }

  /** Whether one more slot may be spent on starting sandboxes of an environment. */
  mayStart(environment: string): boolean {
    if (environment === this.#defaultEnvironment() || this.#health.isProven(environment)) return true;
    const trying = this.#slots.filter(
      (slot) =>
        (slot.state === "starting" || slot.state === "failed") &&
        slot.environment !== this.#defaultEnvironment() &&
        !this.#health.isProven(slot.environment),
    );
    return trying.length < Math.max(1, Math.floor(this.#slots.length / 2));
  }

  /** An idle sandbox without a session: one that the principal has used before rather than an unused one. */
  pristine(environment: string, principal: string): Slot<S> | undefined {
    const fitting = this.#slots.filter(
      (slot) =>
        slot.isIdle &&
        !slot.resident &&
        slot.environment === environment &&
        this.#tenants.mayServe(slot.sandbox, principal),
    );
    return fitting.find(({ sandbox }) => !this.#tenants.isUnused(sandbox)) ?? fitting[0];
  }

  /** The idle sandbox that is best given up for `environment`: it holds a session, or is of another environment or principal. */
  spare(environment: string, principal: string): Slot<S> | undefined {
    const fits = (slot: Slot<S>) => slot.environment === environment && this.#tenants.mayServe(slot.sandbox, principal);
    return this.#replaceable(principal).sort((a, b) => {
      // The last to go are pinned sessions, and of these those of a principal that has no more than its share.
      const pinned = this.#loss(a, principal) - this.#loss(b, principal);
      const fit = Number(fits(b)) - Number(fits(a));
      const unused = Number(this.#tenants.isUnused(a.sandbox)) - Number(this.#tenants.isUnused(b.sandbox));
      const several = this.#isOneOfSeveral(b) - this.#isOneOfSeveral(a);
      return pinned || fit || unused || several || a.idleSinceMs - b.idleSinceMs;
    })[0];
  }

  /**
   * Idle sandboxes. Of those whose session is pinned only the ones of others who have more than their share, and all where there are no
   * others to wait for.
   *
   * @param principal for whom one is given up; null: for none that waits.
   */
  #replaceable(principal: string | null): Slot<S>[] {
    const most = this.#slots.every((slot) => slot.resident?.pinned === true) ? 2 : 1;
    return this.#slots.filter((slot) => slot.isIdle && this.#loss(slot, principal) <= most);
  }

  /** What giving up a sandbox costs: 0: time. 1: the pinned session of another who has too many. 2: any other pinned session. */
  #loss({ resident }: Slot<S>, principal: string | null): 0 | 1 | 2 {
    if (resident?.pinned !== true) return 0;
    const isTooMany = principal !== null && principal !== resident.principal && this.#hasTooMany(resident.principal);
    return isTooMany ? 1 : 2;
  }

  /**
   * Where there are too few unused sandboxes, the one that is best given up for another: of a principal that has several, or else the one
   * that was used least recently.
   */
  toBecomeUnused(): Slot<S> | undefined {
    const unused = this.#slots.filter(
      ({ isIdle, isComing, sandbox }) => (isIdle || isComing) && this.#tenants.isUnused(sandbox),
    );
    if (unused.length >= this.#spares) return undefined;
    const [first] = this.#replaceable(null)
      .filter(({ sandbox }) => !this.#tenants.isUnused(sandbox))
      .sort(
        (a, b) =>
          this.#isOneOfSeveral(b) - this.#isOneOfSeveral(a) ||
          Number(a.resident !== null) - Number(b.resident !== null) ||
          a.idleSinceMs - b.idleSinceMs,
      );
    if (!first) return undefined;
    // One that is busy still will be idle soon, and another principal keeps its only one.
    const isOnly = this.#isOneOfSeveral(first) === 0;
    return isOnly && this.#slots.some((slot) => this.#isOneOfSeveral(slot) === 1) ? undefined : first;
  }

  /** Whether a principal has more sandboxes than its share: those that run its executions, and those that it keeps by pinned sessions. */
  #hasTooMany(principal: string): boolean {
    const kept = this.#slots.filter(
      ({ state, resident }) => state === "idle" && resident?.pinned === true && resident.principal === principal,
    );
    return this.#inUseOf(principal) + kept.length > this.#maxPerPrincipal;
  }

  #isOneOfSeveral({ sandbox }: Slot<S>): number {
    return Number(
      this.#tenants.countOf(
        sandbox,
        this.#slots.map((slot) => slot.sandbox),
      ) > 1,
    );
  }
}
