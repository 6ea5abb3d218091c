import { z } from "zod";
import { KEY_PREFIX, type RedisConnection, unavailable } from "../shared/redis-connection.ts";
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
const MAX_LATEST = 20;
/** A server that comes back later than this after it died in the middle of a batch may count that one twice. */
const KEEP_BATCH_NAMES_MS = 30 * 86_400_000;

/**
 * KEYS batch's name. ARGV prefix, ms to remember the name, counts as [principal, kind, [[name, count], …]], executions as
 * [principal, text], names that stay, their kinds, the name for the rest, times to forget as [kind, first to keep].
 *
 * What a full Redis refuses comes first: a batch is counted as a whole or not at all, and once, however often it is sent.
 */
const ADD = `
  if not redis.call("SET", KEYS[1], "", "NX", "PX", ARGV[2]) then return "known" end
  local max = tonumber(ARGV[5])
  local named, since = {}, {}
  for _, kind in ipairs(cjson.decode(ARGV[6])) do named[kind] = true end
  for _, item in ipairs(cjson.decode(ARGV[8])) do since[item[1]] = item[2] end
  for _, group in ipairs(cjson.decode(ARGV[3])) do
    local principal, kind = group[1], group[2]
    local key = ARGV[1] .. kind .. ":" .. principal
    redis.call("SADD", ARGV[1] .. "principals", principal)
    for _, item in ipairs(group[3]) do redis.call("HINCRBYFLOAT", key, item[1], item[2]) end
    if named[kind] and redis.call("HLEN", key) > 2 * max then
      local all, counts = redis.call("HGETALL", key), {}
      for i = 1, #all, 2 do
        if all[i] ~= ARGV[7] then counts[#counts + 1] = {all[i], tonumber(all[i + 1])} end
      end
      table.sort(counts, function(a, b) return a[2] > b[2] or (a[2] == b[2] and a[1] < b[1]) end)
      local rest = 0
      for i = max + 1, #counts do
        rest = rest + counts[i][2]
        redis.call("HDEL", key, counts[i][1])
      end
      redis.call("HINCRBYFLOAT", key, ARGV[7], rest)
    end
    if since[kind] then
      for _, name in ipairs(redis.call("HKEYS", key)) do
        if tonumber(name) < since[kind] then redis.call("HDEL", key, name) end
      end
    end
  end
  for _, item in ipairs(cjson.decode(ARGV[4])) do
    local key = ARGV[1] .. "latest:" .. item[1]
    redis.call("LPUSH", key, item[2])
    redis.call("LTRIM", key, 0, ${MAX_LATEST - 1})
  end
  return "added"`;

/** KEYS set of principals. ARGV prefix, kinds, principal or nothing: all. */
const CLEAR = `
  local principals = ARGV[3] == "" and redis.call("SMEMBERS", KEYS[1]) or {ARGV[3]}
  for _, principal in ipairs(principals) do
    for _, kind in ipairs(cjson.decode(ARGV[2])) do redis.call("UNLINK", ARGV[1] .. kind .. ":" .. principal) end
    redis.call("SREM", KEYS[1], principal)
  end
  return "cleared"`;

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

  insert(event: StatisticsEvent): void {
    this.#events.insert(event);
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
