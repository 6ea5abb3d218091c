const MIB = 1024 * 1024;

/** Arguments of calls that have no answer yet; answers that code has not taken yet; last replies that no client has taken. */
type Kind = "inputs" | "answers" | "replies";

/** Bytes of one execution, and of all of one principal's. Kinds have rooms of their own: answers have room when arguments have none. */
export const HELD_LIMITS: Readonly<Record<Kind, { readonly ofExecution: number; readonly ofPrincipal: number }>> = {
  inputs: { ofExecution: 64 * MIB, ofPrincipal: 128 * MIB },
  answers: { ofExecution: 64 * MIB, ofPrincipal: 128 * MIB },
  replies: { ofExecution: Number.POSITIVE_INFINITY, ofPrincipal: 128 * MIB },
};

type Counts = Record<Kind, number>;

const none = (): Counts => ({ inputs: 0, answers: 0, replies: 0 });

/** Counts what this server holds in memory for calls of all executions. */
export class HeldBytes {
  readonly #ofPrincipal = new Map<string, Counts>();

  /** Principals of whom something is held. */
  get principals(): readonly string[] {
    return [...this.#ofPrincipal.keys()];
  }

  /** What one execution of a principal's holds: nothing at first. */
  share(principal: string): HeldShare {
    return new HeldShare((kind, bytes) => this.#add(principal, kind, bytes));
  }

  /** @returns what is held then. */
  #add(principal: string, kind: Kind, bytes: number): number {
    const counts = this.#ofPrincipal.get(principal) ?? none();
    counts[kind] += bytes;
    if (Object.values(counts).some((count) => count > 0)) this.#ofPrincipal.set(principal, counts);
    else this.#ofPrincipal.delete(principal);
    return counts[kind];
  }
}

/** What one execution holds. */
export class HeldShare {
  readonly #add: (kind: Kind, bytes: number) => number;
  readonly #own = none();

  /** @param add counts for the principal; returns what all its executions hold then. */
  constructor(add: (kind: Kind, bytes: number) => number) {
    this.#add = add;
  }

  /** Whether the execution, and its principal, may hold so many bytes more. One that holds nothing always may. */
  hasRoom(kind: Kind, bytes: number): boolean {
    const { ofExecution, ofPrincipal } = HELD_LIMITS[kind];
    const own = this.#own[kind];
    const all = this.#add(kind, 0);
    return (own === 0 || own + bytes <= ofExecution) && (all === 0 || all + bytes <= ofPrincipal);
  }

  hold(kind: Kind, bytes: number): void {
    this.#own[kind] += bytes;
    this.#add(kind, bytes);
  }

  release(kind: Kind, bytes: number): void {
    this.hold(kind, -bytes);
  }

  /** Releases all of a kind. */
  releaseAll(kind: Kind): void {
    this.release(kind, this.#own[kind]);
  }

  /** Whether the principal holds more than it may: something has to go. */
  isOver(kind: Kind): boolean {
    return this.#add(kind, 0) > HELD_LIMITS[kind].ofPrincipal;
  }
}
