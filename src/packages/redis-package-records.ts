import { randomUUID } from "node:crypto";
import { luaScript } from "../shared/lua-script.ts";
import type { RedisConnection } from "../shared/redis-connection.ts";
import { KEY_PREFIX } from "../shared/redis-keys.ts";
import {
  emptyRecord,
  type PackageRecord,
  type PackageRecords,
  packageRecord,
  recordId,
  type StampedRecord,
} from "./package-records.ts";

const KEYS = `${KEY_PREFIX}packages:`;

const WRITE = luaScript(new URL("redis/write-record.lua", import.meta.url));

/**
 * What principals have installed, in Redis: each server derives the same package sets from it, with files it fetches itself.
 *
 * Every method throws {@link ClientError} 503 `store_unavailable`, 507 `store_full`.
 */
export class RedisPackageRecords implements PackageRecords {
  readonly #connection: RedisConnection;

  constructor(connection: RedisConnection) {
    this.#connection = connection;
  }

  async stamp(principal: string, environment: string): Promise<string | null> {
    return await this.#connection.attempt((redis) => redis.hget(keyOf(principal, environment), "stamp"));
  }

  async read(principal: string, environment: string): Promise<StampedRecord> {
    const key = keyOf(principal, environment);
    const [stamp, text] = await this.#connection.attempt((redis) => redis.hmget(key, "stamp", "record"));
    if (!stamp || !text) return { record: emptyRecord(principal, environment), stamp: null };
    return { record: packageRecord.parse(JSON.parse(text)), stamp };
  }

  async write(record: PackageRecord, stamp: string | null): Promise<boolean> {
    const answer = await this.#connection.run(
      WRITE,
      [keyOf(record.principal, record.environment)],
      [this.#connection.deadlineMs(), stamp ?? "", randomUUID(), JSON.stringify(record)],
    );
    if (answer === "late") await this.#connection.refuseLate();
    return answer === "written";
  }

  async clear(principal: string, environment: string): Promise<void> {
    await this.#connection.attempt((redis) => redis.del(keyOf(principal, environment)));
  }

  async wheels(): Promise<ReadonlySet<string>> {
    const wheels = new Set<string>();
    let cursor = "0";
    do {
      const [next, keys] = await this.#connection.attempt((redis) =>
        redis.scan(cursor, "MATCH", `${KEYS}*`, "COUNT", 500),
      );
      for (const key of keys) {
        const text = await this.#connection.attempt((redis) => redis.hget(key, "record"));
        for (const { sha256 } of text === null ? [] : packageRecord.parse(JSON.parse(text)).packages)
          wheels.add(sha256);
      }
      cursor = next;
    } while (cursor !== "0");
    return wheels;
  }
}

function keyOf(principal: string, environment: string): string {
  return KEYS + recordId(principal, environment);
}
