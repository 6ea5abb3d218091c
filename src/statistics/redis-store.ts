import { z } from "zod";
import { luaScript } from "../shared/lua-script.ts";
import { type RedisConnection, unavailable } from "../shared/redis-connection.ts";
import { KEY_PREFIX } from "../shared/redis-keys.ts";
import {
  type Counters,
  EVERYBODY,
  KINDS,
  MAX_NAMES,
  NAMED_KINDS,
  OTHER,
  type StatisticsEvent,
  shownSince,
  sumUp,
} from "./counters.ts";
import { DiskStatistics } from "./disk-store.ts";
import type { StatisticsStore } from "./store.ts";

export interface RedisStatisticsOptions {
  readonly connection: RedisConnection;
  /** Folder of `statistics.sqlite`, where events wait until they are in Redis. */
  readonly dir: string;
}

const PREFIX = `${KEY_PREFIX}statistics:`;
/** A server that comes back later than this after it died in the middle of a batch may count that one twice. */
const KEEP_BATCH_NAMES_MS = 30 * 86_400_000;

const script = (name: string) => luaScript(new URL(`redis/${name}.lua`, import.meta.url));
const ADD = script("add-batch");
const CLEAR = script("clear");

const latestExecution = z.object({
  atMs: z.number(),
  type: z.literal("execution"),
  principal: z.string(),
  ip: z.string(),
  agent: z.string(),
  success: z.boolean(),
  error: z.string().nullable(),
  timeMs: z.number(),
});

/**
 * A fleet's counters in Redis: a hash `statistics:<kind>:<principal>` for each kind of name, and a list of the latest
 * executions. Events go to this server's disk first and from there to Redis, in batches that are each counted once, so what
 * was recorded while Redis was away, or before a restart, is in the sum as soon as Redis has answered.
 *
 * What other servers recorded before a `clear`, but could not send until after it, is counted.
 */
export class RedisStatistics implements StatisticsStore {
  readonly #connection: RedisConnection;
  readonly #events: DiskStatistics;

  /** @throws {StartupError} if the file cannot be used. */
  constructor({ connection, dir }: RedisStatisticsOptions) {
    this.#connection = connection;
    this.#events = new DiskStatistics(dir);
  }

  insert(events: readonly StatisticsEvent[]): void {
    this.#events.insert(events);
  }

  /** @throws {ClientError} 503 `store_unavailable`, 507 `store_full`. */
  async fold(nowMs: number): Promise<void> {
    for (let batch = this.#events.takeBatch(); batch !== null; batch = this.#events.takeBatch()) {
      await this.#connection.run(
        ADD,
        [`${PREFIX}batch:${batch.name}`],
        [
          PREFIX,
          KEEP_BATCH_NAMES_MS,
          JSON.stringify(groupsOf(batch.events)),
          JSON.stringify(latestOf(batch.events)),
          MAX_NAMES,
          JSON.stringify(NAMED_KINDS),
          OTHER,
          JSON.stringify([...shownSince(nowMs)]),
        ],
      );
      this.#events.finishBatch();
    }
  }

  async countersOf(principal: string): Promise<Counters> {
    const replies = await this.#connection.attempt((redis) => {
      const pipeline = redis.pipeline();
      for (const kind of KINDS) pipeline.hgetall(keyOf(kind, principal));
      return pipeline.exec();
    });
    return new Map(
      KINDS.map((kind, i) => {
        const [error, counts] = replies?.[i] ?? [new Error("no reply")];
        if (error) throw unavailable(error);
        return [kind, new Map(Object.entries(counts as Record<string, string>).map(([name, n]) => [name, Number(n)]))];
      }),
    );
  }

  async latestExecutions(principal: string, limit: number): Promise<readonly StatisticsEvent[]> {
    const texts = await this.#connection.attempt((redis) => redis.lrange(keyOf("latest", principal), 0, limit - 1));
    // Servers send theirs in batches.
    return texts.map((text) => latestExecution.parse(JSON.parse(text))).sort((a, b) => b.atMs - a.atMs);
  }

  async clear(principal: string): Promise<void> {
    await this.#connection.run(
      CLEAR,
      [`${PREFIX}principals`],
      [PREFIX, JSON.stringify([...KINDS, "latest"]), principal],
    );
  }

  /** The connection is not its own, and stays. */
  close(): void {
    this.#events.close();
  }
}

function keyOf(kind: string, principal: string): string {
  return `${PREFIX}${kind}:${principal}`;
}

function groupsOf(events: readonly StatisticsEvent[]): [principal: string, kind: string, [string, number][]][] {
  return [...sumUp(events)].flatMap(([principal, kinds]) =>
    [...kinds].map(([kind, names]): [string, string, [string, number][]] => [principal, kind, [...names]]),
  );
}

function latestOf(events: readonly StatisticsEvent[]): [principal: string, text: string][] {
  return events
    .filter(({ type }) => type === "execution")
    .flatMap((event) =>
      [...new Set([EVERYBODY, event.principal])].map((principal): [string, string] => [
        principal,
        JSON.stringify(event),
      ]),
    );
}
