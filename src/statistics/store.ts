import type { Counters, StatisticsEvent } from "./counters.ts";

/** Where statistics are kept: of this server on its disk, or of a fleet in Redis. */
export interface StatisticsStore {
  /**
   * Puts events on this server's disk, all or none, in one transaction: safe from the death of the server.
   *
   * @throws what SQLite throws: a full disk, a lock that another process holds for over 250 ms.
   */
  insert(events: readonly StatisticsEvent[]): void;
  /** Adds what was inserted to the counters, each event once, whatever happens. Fails where it has to be tried again. */
  fold(nowMs: number): void | Promise<void>;
  countersOf(principal: string): Counters | Promise<Counters>;
  /** Newest first. */
  latestExecutions(principal: string, limit: number): readonly StatisticsEvent[] | Promise<readonly StatisticsEvent[]>;
  /** Forgets one principal's counters and leaves everybody's as they are; EVERYBODY: forgets all there is. */
  clear(principal: string): void | Promise<void>;
  close(): void;
}
