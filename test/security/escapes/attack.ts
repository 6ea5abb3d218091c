import type { Layer } from "./layers.ts";
import type { Reply, Target } from "./target.ts";

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
  /** Another port there, where every request is redirected to the first. */
  readonly redirect_port: number;
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
  /** In place of the code's execution: requests of any kind. Only their replies count. */
  readonly act?: (target: Target, prize: Prize) => Promise<readonly Reply[]>;
  /**
   * Run the code in a session. Another principal's session, which lives on the same sandbox, runs `next`; then the attacker's
   * session is loaded again, and `next` runs once more.
   */
  readonly session?: boolean;
  readonly context?: Record<string, unknown>;
  readonly timeoutMs?: number;
  /** Python that another principal runs right after; it too wins by printing `won`. */
  readonly next?: string;
  /** Keep the caller's workspace, which persists by design; default: run without. */
  readonly workspace?: boolean;
  /** How many connections send at once, where these are many: one turn of the server's event loop reads from all of them. */
  readonly connections?: number;
  /** It also succeeds by ending, or holding up, the process that runs it: here a sandbox, elsewhere the server. */
  readonly denial?: boolean;
  /** Why nothing can be taken away so that it succeeds. Such an attack shows less than the others. */
  readonly noControl?: string;
}

export interface Technique {
  readonly title: string;
  readonly attacks: readonly Attack[];
  /** The server's, beyond what all have. PORT and REDIRECT_PORT stand for the ports of {@link Prize}. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Files that have to lie in the server's data folder before it starts. */
  readonly files?: Readonly<Record<string, Uint8Array>>;
  /** What is taken away so that the attacks succeed; each is tried until one does it. See `controls.ts`. */
  readonly controls: readonly Control[];
}

/**
 * Where an attack is run to see that it can succeed.
 *
 * - `stock`: Pyodide as it comes, in Node.
 * - `native`: the Python of the machine, which has an operating system under it.
 * - layers of `mutant.ts`: the server without these.
 */
export type Control = "stock" | "native" | readonly Layer[];

/**
 * One attack for each of several pieces of code, named by its text.
 *
 * @param after what comes behind each: {@link REACHED} where coming so far is a success.
 */
export function each(
  codes: readonly string[],
  rest: Omit<Attack, "name" | "code"> = {},
  { before = "", after = "" }: { readonly before?: string; readonly after?: string } = {},
): Attack[] {
  return codes.map((code) => ({
    ...rest,
    name: code.replaceAll("\n", "; ").slice(0, 110),
    code: before + code + after,
  }));
}

/** Said by code that has come to its end although something in it should have stopped it. */
export const REACHED = "\nprint(won)";

/**
 * Says of attacks why they have no control.
 *
 * @param reasons why → texts that the names of such attacks have.
 * @throws {Error} if a text is in no name: the list has not been kept.
 */
export function excuse(
  attacks: readonly Attack[],
  reasons: Readonly<Record<string, readonly string[]>>,
): readonly Attack[] {
  const texts = Object.entries(reasons).flatMap(([reason, parts]) => parts.map((part) => [part, reason] as const));
  for (const [part] of texts) {
    if (!attacks.some(({ name }) => name.includes(part))) throw new Error(`no attack is called ${part}`);
  }
  return attacks.map((attack) => {
    const found = texts.find(([part]) => attack.name.includes(part));
    return found ? { ...attack, noControl: found[1] } : attack;
  });
}
