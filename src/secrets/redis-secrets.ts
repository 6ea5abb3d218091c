import { luaScript } from "../shared/lua-script.ts";
import type { RedisConnection } from "../shared/redis-connection.ts";
import { KEY_PREFIX } from "../shared/redis-keys.ts";
import { ownerId, type SecretRecord, type SecretRecords } from "./secret-records.ts";

const PUT = luaScript(new URL("redis/put.lua", import.meta.url));

/** Principals' secrets in Redis, one hash for each principal: sealed there as on a disk. */
export class RedisSecrets implements SecretRecords {
  readonly #connection: RedisConnection;

  constructor(connection: RedisConnection) {
    this.#connection = connection;
  }

  async get(principal: string, name: string): Promise<SecretRecord | null> {
    const text = await this.#connection.attempt((redis) => redis.hget(keyOf(principal), name));
    return text === null ? null : JSON.parse(text);
  }

  async list(principal: string): Promise<ReadonlyMap<string, SecretRecord>> {
    const all = await this.#connection.attempt((redis) => redis.hgetall(keyOf(principal)));
    return new Map(Object.entries(all).map(([name, text]) => [name, JSON.parse(text)]));
  }

  async put(principal: string, name: string, record: SecretRecord, max: number): Promise<boolean> {
    const answer = await this.#connection.run(
      PUT,
      [keyOf(principal)],
      [this.#connection.deadlineMs(), name, JSON.stringify(record), max],
    );
    if (answer === "late") await this.#connection.refuseLate();
    return answer === "stored";
  }

  async delete(principal: string, name: string): Promise<boolean> {
    return (await this.#connection.attempt((redis) => redis.hdel(keyOf(principal), name))) > 0;
  }
}

function keyOf(principal: string): string {
  return `${KEY_PREFIX}secrets:${ownerId(principal)}`;
}
