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

  constructor(
    slots: readonly Slot<S>[],
    options: {
      readonly tenants: SandboxTenants;
      readonly health: EnvironmentHealth;
      /** The environment of sandboxes that no other was asked of. */
      readonly defaultEnvironment: () => string;
      readonly spares: number;
    },
  ) {
    this.#slots = slots;
    this.#tenants = options.tenants;
    this.#health = options.health;
    this.#defaultEnvironment = options.defaultEnvironment;
    this.#spares = options.spares;
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
    return this.#replaceable().sort((a, b) => {
      const fit = Number(fits(b)) - Number(fits(a));
      const unused = Number(this.#tenants.isUnused(a.sandbox)) - Number(this.#tenants.isUnused(b.sandbox));
      const several = this.#isOneOfSeveral(b) - this.#isOneOfSeveral(a);
      return fit || unused || several || a.idleSinceMs - b.idleSinceMs;
    })[0];
  }

  /** Idle sandboxes; of those whose session is pinned only where there are no others to wait for. */
  #replaceable(): Slot<S>[] {
    const everyOneIsPinned = this.#slots.every((slot) => slot.resident?.pinned === true);
    return this.#slots.filter((slot) => slot.isIdle && (everyOneIsPinned || slot.resident?.pinned !== true));
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
    const [first] = this.#replaceable()
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

  #isOneOfSeveral({ sandbox }: Slot<S>): number {
    return Number(
      this.#tenants.countOf(
        sandbox,
        this.#slots.map((slot) => slot.sandbox),
      ) > 1,
    );
  }
}
