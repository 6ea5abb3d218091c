import { expect } from "vitest";
import type { Reply } from "./target.ts";

/** What an attack may know of its victim; in Python these are global variables. */
export interface Prize {
  /** Random text. Who makes it appear where an attack should not reach has won: see {@link Proof}. */
  readonly won: string;
  /** A file of the host that holds another random text. The server's environment holds it too. */
  readonly secret_file: string;
  /** A file that does not exist, in a folder of the host that everybody may write to. */
  readonly marker: string;
  /** A TCP port of the host's loopback interface that nobody is meant to connect to. */
  readonly port: number;
  /** The server's process. */
  readonly pid: number;
}

/**
 * Where `won` counts as proof.
 *
 * - `reply`: anywhere in what comes back: user code prints it once it has what it should not have.
 * - `result`: as the result of an execution that had none, or of the next one: somebody forged it.
 * - `none`: only the host can tell (a marker, a connection, a secret, a server that is not well).
 *
 * The host's own proofs count for every attack.
 */
export type Proof = "reply" | "result" | "none";

/** One way to get out, or at somebody else. */
export interface Attack {
  readonly name: string;
  readonly proof?: Proof;
  /** Python, run as one principal. The members of {@link Prize} are variables. */
  readonly code: string;
  readonly context?: Record<string, unknown>;
  readonly timeoutMs?: number;
  /** Python that another principal runs right after; it too wins by printing `won`. */
  readonly next?: string;
  /** Keep the caller's workspace, which persists by design; default: run without. */
  readonly workspace?: boolean;
  /** A reply that has to be something; default: any reply of status 200. */
  readonly reply?: (reply: Reply) => void;
}

export interface Technique {
  readonly title: string;
  readonly attacks: readonly Attack[];
}

/** One attack for each of several pieces of code, named by its first line that says something. */
export function each(codes: readonly string[], rest: Omit<Attack, "name" | "code"> = {}, prelude = ""): Attack[] {
  return codes.map((code) => ({ ...rest, name: code.replaceAll("\n", "; ").slice(0, 110), code: prelude + code }));
}

/** For {@link Attack.reply}: the code must not have come to its end. */
export function fails({ body }: Reply): void {
  expect(body).toMatchObject({ success: false });
}
