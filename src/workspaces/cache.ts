import type { HeldWorkspace, WorkspaceStorage } from "./storage.ts";

/** A storage whose index takes memory. */
interface CachedStorage extends WorkspaceStorage {
  /** Files and folders in the index that is in memory now. */
  readonly entryCount: number;
  /** Waits for the changes that have begun; later ones fail. */
  close(): Promise<void>;
}

interface Slot<T> {
  readonly loading: Promise<T>;
  /** Calls and snapshots that use the storage now. */
  holders: number;
  /** Its share of the cached entries. */
  entries: number;
}

const DEFAULT_CACHED_ENTRIES = 200_000;

/**
 * The workspaces that a process has in memory: one storage for each principal, those in use and as many others as there
 * is room for, so that memory is bounded however many principals there are.
 */
export class WorkspaceCache<T extends CachedStorage> {
  readonly #load: (principal: string) => Promise<T>;
  readonly #maxEntries: number;
  /** Least recently used first. */
  readonly #slots = new Map<string, Slot<T>>();
  #cachedEntries = 0;
  #closed = false;

  /** @param maxEntries most index entries that stay while their principals do nothing. */
  constructor(load: (principal: string) => Promise<T>, maxEntries = DEFAULT_CACHED_ENTRIES) {
    this.#load = load;
    this.#maxEntries = maxEntries;
  }

  async hold(principal: string): Promise<HeldWorkspace> {
    if (this.#closed) throw new Error("the workspace store is closed");
    const slot = this.#slots.get(principal) ?? { loading: this.#load(principal), holders: 0, entries: 0 };
    this.#slots.delete(principal);
    this.#slots.set(principal, slot);
    slot.holders += 1;
    try {
      const storage = await slot.loading;
      return { storage, [Symbol.dispose]: () => this.#letGo(slot, storage) };
    } catch (error) {
      if (this.#slots.get(principal) === slot) this.#slots.delete(principal);
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    const storages = await Promise.allSettled(Array.from(this.#slots.values(), (slot) => slot.loading));
    await Promise.all(storages.map((storage) => storage.status === "fulfilled" && storage.value.close()));
  }

  #letGo(slot: Slot<T>, storage: T): void {
    slot.holders -= 1;
    this.#cachedEntries += storage.entryCount - slot.entries;
    slot.entries = storage.entryCount;
    for (const [principal, { holders, entries }] of this.#slots) {
      if (this.#cachedEntries <= this.#maxEntries) break;
      if (holders > 0) continue;
      this.#slots.delete(principal);
      this.#cachedEntries -= entries;
    }
  }
}
