import type { PooledSandbox } from "./slot.ts";

/** `all`: a sandbox is rewound and serves the next principal. `principal`: it serves one principal, and is ended for another. */
export type Sharing = "all" | "principal";

/**
 * Which principal a sandbox belongs to from its first execution until its end, where sandboxes are not shared. What the host
 * lends it to is the one thing that decides: nothing that a sandbox says.
 */
export class SandboxTenants {
  readonly #sharing: Sharing;
  readonly #tenants = new WeakMap<PooledSandbox, string>();

  constructor(sharing: Sharing) {
    this.#sharing = sharing;
  }

  mayServe(sandbox: PooledSandbox | null, principal: string): boolean {
    const tenant = sandbox === null ? undefined : this.#tenants.get(sandbox);
    return this.#sharing === "all" || tenant === undefined || tenant === principal;
  }

  /** Whether no principal has used it yet. Always, where sandboxes are shared: a rewound one is as good as new. */
  isUnused(sandbox: PooledSandbox | null): boolean {
    return this.#sharing === "all" || sandbox === null || !this.#tenants.has(sandbox);
  }

  /** How many of these sandboxes the one's principal has, itself included; 0: it is unused. */
  countOf(sandbox: PooledSandbox | null, among: readonly (PooledSandbox | null)[]): number {
    if (this.isUnused(sandbox) || sandbox === null) return 0;
    const tenant = this.#tenants.get(sandbox);
    return among.filter((other) => other !== null && this.#tenants.get(other) === tenant).length;
  }

  /** @throws {Error} if it is another principal's: a defect, after which its code must not run there. */
  settle(sandbox: PooledSandbox, principal: string): void {
    if (this.#sharing === "all") return;
    if (!this.mayServe(sandbox, principal)) throw new Error("a sandbox was about to serve two principals");
    this.#tenants.set(sandbox, principal);
  }

  /** How many sandboxes are kept beside those that may be in use, so that a principal who comes waits for no start. */
  sparesFor(size: number): number {
    return this.#sharing === "all" ? 0 : Math.ceil(size / 2);
  }
}
