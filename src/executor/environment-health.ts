import { backoffMs } from "../shared/backoff.ts";
import { ClientError } from "../shared/errors.ts";
import { steadyNowMs } from "../shared/steady-clock.ts";

/** Failed starts in a row after which an environment is broken. */
const MAX_FAILURES = 3;
/** A start that took as long before it failed counts as all of them: no request should wait for three such. */
const LONG_START_MS = 5_000;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 30_000;
/** How long a broken environment is not tried again; twice as long each time. */
const FIRST_REST_MS = 30_000;
const LONGEST_REST_MS = 600_000;
/** Environments of which it is known that they fail; the longest known are forgotten first. */
const MAX_KNOWN = 1000;
const MAX_REASON_CHARACTERS = 300;

/** An environment whose sandboxes do not start. */
export interface BrokenEnvironment {
  readonly environment: string;
  /** Why, in words that may be shown: no path of the host. */
  readonly reason: string;
  readonly sinceMs: number;
  /** Not tried again before. */
  readonly retryAtMs: number;
}

interface Failing {
  failures: number;
  reason: string;
  sinceMs: number;
  /** 0: it is not broken yet. */
  retryAtMs: number;
  restMs: number;
}

/**
 * Which environments' sandboxes start, and which do not: an environment holds packages that a caller has chosen, and they can
 * fail in every boot. After some failed starts it is broken: who asks for it is told so, until it is tried again.
 */
export class EnvironmentHealth {
  readonly #failing = new Map<string, Failing>();
  readonly #proven = new Set<string>();
  readonly #now: () => number;

  /** @param now ms; for tests. */
  constructor(now: () => number = steadyNowMs) {
    this.#now = now;
  }

  /** A sandbox of it got ready: it may be asked for. */
  started(environment: string): void {
    const known = this.#failing.get(environment);
    if (known) known.retryAtMs = 0;
    if (this.#proven.size >= MAX_KNOWN) this.#proven.clear();
    this.#proven.add(environment);
  }

  /** Code ran in it: what went before counts no more. One that ends as soon as it is ready does not come so far. */
  used(environment: string): void {
    this.#failing.delete(environment);
  }

  /** A start failed, or a sandbox ended before it was used. @param tookMs how long that took. */
  failed(environment: string, error: Error, tookMs: number): void {
    this.#proven.delete(environment);
    const known = this.#failing.get(environment) ?? {
      failures: 0,
      reason: "",
      sinceMs: this.#now(),
      retryAtMs: 0,
      restMs: FIRST_REST_MS,
    };
    known.failures += tookMs >= LONG_START_MS ? MAX_FAILURES : 1;
    known.reason = shown(error.message);
    if (known.failures >= MAX_FAILURES) {
      known.retryAtMs = this.#now() + known.restMs;
      known.restMs = Math.min(known.restMs * 2, LONGEST_REST_MS);
    }
    // Last in the order in which they are forgotten.
    this.#failing.delete(environment);
    this.#failing.set(environment, known);
    const [oldest] = this.#failing.keys();
    if (this.#failing.size > MAX_KNOWN && oldest !== undefined) this.#failing.delete(oldest);
  }

  /** A sandbox of it has started since its last failure, if there was one. */
  isProven(environment: string): boolean {
    return this.#proven.has(environment);
  }

  isBroken(environment: string): boolean {
    return (this.#failing.get(environment)?.retryAtMs ?? 0) !== 0;
  }

  /** How long to wait before the next try, ms. */
  pauseMs(environment: string): number {
    const { failures } = this.#failing.get(environment) ?? { failures: 0 };
    return failures === 0 ? 0 : backoffMs(failures, { firstMs: FIRST_PAUSE_MS, longestMs: LONGEST_PAUSE_MS });
  }

  /** What to tell who asks for it; null: it is well, or may be tried. */
  refusal(environment: string): ClientError | null {
    const known = this.#failing.get(environment);
    if (!known || known.retryAtMs <= this.#now()) return null;
    const retryAfterS = Math.ceil((known.retryAtMs - this.#now()) / 1000);
    const message = `The environment "${environment}" cannot be started: ${known.reason}`;
    return new ClientError("environment_broken", message, { retryAfterS });
  }

  broken(): readonly BrokenEnvironment[] {
    return Array.from(this.#failing, ([environment, { reason, sinceMs, retryAtMs }]) => ({
      environment,
      reason,
      sinceMs,
      retryAtMs,
    })).filter(({ environment }) => this.isBroken(environment));
  }
}

/** The first line of what a process said of its end, without paths; it may be of a package's making. */
function shown(message: string): string {
  const [line = ""] = message.split("\n", 1);
  return line
    .replaceAll(/(?:file:\/\/)?(?:\/[^\s/:"'()]+)+\/?(?::\d+)*/g, "…")
    .replaceAll(/\p{Cc}/gu, " ")
    .slice(0, MAX_REASON_CHARACTERS)
    .trimEnd();
}
