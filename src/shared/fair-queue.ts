/**
 * A bounded queue that takes turns among principals: one who queues a hundred items delays another by one, not by a hundred.
 */
export class FairQueue<T> {
  /** Principals in the order of their turns; each has at least one item. */
  readonly #items = new Map<string, T[]>();
  readonly #limit: number;
  #length = 0;

  /** @param limit most items that may wait. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get length(): number {
    return this.#length;
  }

  get isFull(): boolean {
    return this.#length >= this.#limit;
  }

  /** How many items of one principal wait. */
  lengthOf(principal: string): number {
    return this.#items.get(principal)?.length ?? 0;
  }

  /** How many items get their turn before one that this principal adds now. */
  aheadOf(principal: string): number {
    const own = this.lengthOf(principal);
    let ahead = own;
    for (const [other, items] of this.#items) if (other !== principal) ahead += Math.min(items.length, own + 1);
    return ahead;
  }

  push(principal: string, item: T): void {
    const own = this.#items.get(principal);
    if (own) own.push(item);
    else this.#items.set(principal, [item]);
    this.#length++;
  }

  /** Takes out and returns the first item, in the order of turns, that `accept` takes; undefined if none. */
  take(accept: (item: T) => boolean): T | undefined {
    for (const [principal, own] of this.#items) {
      const index = own.findIndex(accept);
      if (index < 0) continue;
      const [item] = own.splice(index, 1);
      this.#length--;
      // To the end of the line of principals.
      this.#items.delete(principal);
      if (own.length > 0) this.#items.set(principal, own);
      return item;
    }
    return undefined;
  }

  /** Takes an item out of the line without using up its principal's turn. */
  remove(principal: string, item: T): boolean {
    const own = this.#items.get(principal);
    const index = own?.indexOf(item) ?? -1;
    if (!own || index < 0) return false;
    own.splice(index, 1);
    this.#length--;
    if (own.length === 0) this.#items.delete(principal);
    return true;
  }

  /** All items, whose turn is next first: one of each principal, then the second of each, … */
  *inOrder(): Generator<T> {
    for (let round = 0, more = true; more; round++) {
      more = false;
      for (const own of this.#items.values()) {
        const item = own[round];
        if (item === undefined) continue;
        more = true;
        yield item;
      }
    }
  }
}
