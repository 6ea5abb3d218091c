import type { SecurityEvent } from "./event.ts";

interface Group {
  readonly timer: NodeJS.Timeout;
  written: number;
  characters: number;
  counted: number;
  latest: SecurityEvent;
  /** When the first came that was only counted; ms since 1970. */
  firstCountedMs: number;
}

export interface FoldedEventsOptions {
  readonly write: (event: SecurityEvent) => void;
  /** How long events of one kind are counted before a line says how many there were, ms. */
  readonly windowMs: number;
  /** Kinds at a time; those beyond are counted together. */
  readonly maxGroups: number;
  readonly now: () => number;
}

/** Of what is written as it comes: one event may hold 10 MiB. */
const MAX_CHARACTERS = 8 * 2 ** 20;

function charactersOf({ details }: SecurityEvent): number {
  return Object.values(details).reduce<number>((sum, value) => sum + (typeof value === "string" ? value.length : 8), 0);
}

/**
 * Events that one client can cause at any rate: in a window the first of a kind are written as they come, the rest is one line
 * with their number. A server that is killed loses the numbers of the window that has not ended.
 */
export class FoldedEvents {
  readonly #options: FoldedEventsOptions;
  readonly #groups = new Map<string, Group>();

  constructor(options: FoldedEventsOptions) {
    this.#options = options;
  }

  /**
   * @param key events with the same name and key are of one kind.
   * @param burst how many of a kind are written as they come.
   */
  add(event: SecurityEvent, key: string, burst: number): void {
    const { write, windowMs, maxGroups, now } = this.#options;
    let name = `${event.event}|${key}`;
    let told = event;
    if (!this.#groups.has(name) && this.#groups.size >= maxGroups) {
      name = `${event.event}|`;
      // Of whom it would speak, it no longer knows.
      told = { ...event, ip: null, userAgent: null, requestId: null, principal: null };
    }
    let group = this.#groups.get(name);
    if (group === undefined) {
      const timer = setTimeout(() => this.#end(name), windowMs).unref();
      group = { timer, written: 0, characters: 0, counted: 0, latest: told, firstCountedMs: 0 };
      this.#groups.set(name, group);
    }
    if (group.written < burst && group.characters < MAX_CHARACTERS) {
      group.written++;
      group.characters += charactersOf(told);
      write(told);
      return;
    }
    if (group.counted === 0) group.firstCountedMs = now();
    group.counted++;
    group.latest = told;
  }

  /** Writes what has been counted. */
  flush(): void {
    for (const name of [...this.#groups.keys()]) this.#end(name);
  }

  #end(name: string): void {
    const group = this.#groups.get(name);
    if (group === undefined) return;
    clearTimeout(group.timer);
    this.#groups.delete(name);
    if (group.counted === 0) return;
    const { latest, counted, firstCountedMs } = group;
    const details = { ...latest.details, count: counted, since: new Date(firstCountedMs).toISOString() };
    this.#options.write({ ...latest, details });
  }
}
