import type { Verdict } from "../wire/guest-messages.ts";
import type { BrokenEnvironment } from "./environment-health.ts";
import type { Sharing } from "./sandbox-tenants.ts";
import type { PooledSandbox, Slot } from "./slot.ts";

export interface PoolOptions<S extends PooledSandbox> {
  /** Sandboxes kept warm, and most that run code at a time. */
  readonly size: number;
  /** Default `all`. With `principal` there are further sandboxes, half of `size`, that no principal has used yet. */
  readonly sharing?: Sharing;
  /** Which environment an unused sandbox has, by the one that was asked for last; default: that one. */
  readonly spareEnvironment?: (lastAsked: string) => string;
  /** Most that may wait for one. */
  readonly queueLimit: number;
  /** Most that one principal may have running, and waiting; default: no limit of its own. */
  readonly maxPerPrincipal?: number;
  readonly maxQueuedPerPrincipal?: number;
  /** Replace a sandbox that has run this many executions, or is this old. */
  readonly maxExecutions: number;
  readonly maxAgeMs: number;
  /** Environment that sandboxes are started with until another is asked for. */
  readonly environment: string;
  start(environment: string): Promise<S>;
  /** What a new sandbox does before it is idle, unless an execution waits for it. */
  warmUp?(sandbox: S): Promise<Verdict>;
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

/** A sandbox that a request has from now on, though its caller may hear of it a moment later. */
export interface Assignment<S extends PooledSandbox> {
  readonly slot: Slot<S>;
  readonly sandbox: S;
  readonly isResident: boolean;
  readonly released: Promise<void>;
  /** Settles `released`. */
  readonly release: () => void;
}

export interface Waiting<S extends PooledSandbox> {
  readonly principal: string;
  readonly environment: string;
  /** Key of a session that a sandbox may still hold. */
  readonly resident: string | undefined;
  readonly resolve: (assigned: Assignment<S>) => void;
  readonly reject: (error: Error) => void;
}
