import type { RedisOptions } from "ioredis";
import { StartupError } from "./errors.ts";

/** How replies are mapped is each caller's affair. */
export type ConnectionOptions = Omit<RedisOptions, "replyMapping">;

const FORMS =
  "redis://[user:password@]host:6379[/0], rediss:// for TLS, " +
  "or redis+sentinel://[user:password@]host:26379,host:26379/name-of-the-master[/0]";

/**
 * Reads `REDIS_URL`:
 *
 *     redis://[user:password@]host[:port][/db]                         one server, or a name that follows the master
 *     redis+sentinel://[user:password@]host[:port],…/master[/db]       Sentinels that know the master
 *     rediss://…, rediss+sentinel://…                                  the same over TLS
 *
 * User and password may be percent-encoded, as `p%40ss` for `p@ss`. `?sentinelUsername=` and `?sentinelPassword=` are for Sentinels
 * that ask for one.
 *
 * @throws {StartupError} which tells nothing of the password.
 */
export function parseRedisUrl(url: string): ConnectionOptions {
  if (/^redis(s)?(\+|-)cluster:/.test(url)) {
    throw new StartupError(
      "REDIS_URL: Redis Cluster is not supported. Use one Redis, or one with replicas and Sentinels.",
    );
  }
  const form = /^(rediss?)(\+sentinel)?:\/\/(?:([^@/]*)@)?([^@/?]*)([^?]*)(?:\?(.*))?$/.exec(url);
  if (!form) throw wrong("it has another form");
  const [, scheme, sentinel, credentials = "", hosts = "", pathname = "", query = ""] = form;
  const addresses = hosts.split(",").map((text) => address(text, sentinel ? 26379 : 6379));
  const [user, password] = credentials === "" ? [] : splitAtFirst(credentials, ":");
  const tls = scheme === "rediss" ? {} : undefined;
  const common: ConnectionOptions = {
    ...(user && { username: decoded(user) }),
    ...(password && { password: decoded(password) }),
    ...(tls && { tls }),
  };
  const names = pathname.split("/").slice(1);
  if (!sentinel) {
    if (addresses.length > 1) throw wrong("several hosts are for redis+sentinel://");
    if (names.length > 1) throw wrong("after the host comes the number of a database");
    return { ...common, ...addresses[0], db: database(names[0]) };
  }
  const [name, db, ...rest] = names;
  if (!name || rest.length > 0) throw wrong("after the Sentinels comes the name of the master");
  const parameters = new URLSearchParams(query);
  const sentinelUsername = parameters.get("sentinelUsername");
  const sentinelPassword = parameters.get("sentinelPassword");
  return {
    ...common,
    db: database(db),
    name: decoded(name),
    sentinels: addresses,
    ...(sentinelUsername !== null && { sentinelUsername }),
    ...(sentinelPassword !== null && { sentinelPassword }),
    ...(tls && { sentinelTLS: tls, enableTLSForSentinelMode: true }),
  };
}

function address(text: string, defaultPort: number): { host: string; port: number } {
  const parsed = /^(\[[0-9a-fA-F:.]+\]|[^:[\]]+)(?::(\d{1,5}))?$/.exec(text);
  const port = Number(parsed?.[2] ?? defaultPort);
  if (!parsed?.[1] || port < 1 || port > 65_535) throw wrong("it names no host and port");
  return { host: parsed[1].replace(/^\[|\]$/g, ""), port };
}

function database(text = ""): number {
  if (!/^\d{0,4}$/.test(text)) throw wrong("the database is no number");
  return Number(text);
}

function splitAtFirst(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at === -1 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw wrong("a % in user or password must be written %25");
  }
}

function wrong(reason: string): StartupError {
  return new StartupError(
    `REDIS_URL: ${reason}. It must look like ${FORMS}; @, / and % in a password are percent-encoded.`,
  );
}
