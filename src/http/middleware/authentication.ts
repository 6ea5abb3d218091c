import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { isIP } from "node:net";
import type { Request, RequestHandler, Response } from "express";
import ipaddr from "ipaddr.js";
import { ClientError, StartupError } from "../../shared/errors.ts";
import { ANONYMOUS, type Principal, SCOPES, type Scope } from "../../shared/principal.ts";
import type { Config } from "../../shared/settings.ts";
import { type Credential, protocolOf } from "../recognised-protocol.ts";
import { keyInSubprotocols } from "../websocket/upgrade.ts";
import type { KeyGuesses } from "./key-guesses.ts";

interface ApiKey {
  /** SHA-256; the key itself is not kept. */
  readonly digest: Buffer;
  readonly principal: Principal;
}

const WITHOUT_SCOPES: readonly Scope[] = SCOPES.filter((scope) => scope !== "admin");
/** Of letters and digits drawn at random that is 95 bits. */
const MIN_KEY_CHARACTERS = 16;
const TOO_SHORT = `the key has less than ${MIN_KEY_CHARACTERS} characters and could be guessed. Make one: openssl rand -hex 24`;
/** No header can carry them, so no request could ever have the key. */
const UNSENDABLE = /\p{Cc}/u;
const HAS_UNSENDABLE = "the key has a line end or another control character in it, which no request can send";
const NAME = /^[A-Za-z0-9._-]{1,64}$/;

/**
 * Reads `API_KEYS` (`name:key[:scope+scope…]`, comma separated) and `API_KEY` (a key of the name `default` with every
 * scope).
 *
 * An entry without scopes has all but `admin`. Several keys may have one name, to change a key without an interruption:
 * they are one principal, each with its own scopes.
 *
 * @returns none if authentication is off.
 * @throws {StartupError} that names the entry by its position and never shows a key.
 */
export function parseApiKeys(config: Pick<Config, "API_KEYS" | "API_KEY">): readonly ApiKey[] {
  const entries = config.API_KEYS.split(",")
    .map((entry) => entry.trim())
    .filter((entry) => entry !== "");
  const keys = entries.map((entry, i) => parseEntry(entry, i + 1));
  if (config.API_KEY !== "") {
    if (config.API_KEY.length < MIN_KEY_CHARACTERS) throw new StartupError(`API_KEY: ${TOO_SHORT}`);
    if (UNSENDABLE.test(config.API_KEY)) throw new StartupError(`API_KEY: ${HAS_UNSENDABLE}.`);
    keys.push(apiKey("default", config.API_KEY, SCOPES));
  }
  if (new Set(keys.map(({ digest }) => digest.toString("hex"))).size < keys.length) {
    throw new StartupError("API_KEYS and API_KEY: the same key is given twice; each key must stand for one principal.");
  }
  return keys;
}

/**
 * Says who sends a request, for {@link principalOf} and {@link requireScope}.
 *
 * The key is read from `Authorization: Bearer <key>`, else from `X-API-Key`, else, of a WebSocket, from its subprotocols, else from where the request's protocol
 * has it. While no keys are set everybody is {@link ANONYMOUS}, whatever they send.
 *
 * @param guesses limits wrong keys; default: nothing does.
 * @returns middleware that fails with {@link ClientError} 401 `unauthorized`, having set `WWW-Authenticate`, or 429
 *   `too_many_wrong_keys`.
 * @throws {StartupError} see {@link parseApiKeys}.
 */
export function authenticate(config: Pick<Config, "API_KEYS" | "API_KEY">, guesses?: KeyGuesses): RequestHandler {
  const keys = parseApiKeys(config);
  return async (request, response, next) => {
    if (keys.length === 0) {
      response.locals.principal = ANONYMOUS;
      return next();
    }
    const given = presentedKey(request) ?? protocolOf(response)?.credentialOf?.(request);
    if (given === undefined) {
      // RFC 6750, section 3: no error code if the request carried no credentials.
      response.set("WWW-Authenticate", "Bearer");
      throw new ClientError("unauthorized", "Authentication required");
    }
    const presented = digestOf(Buffer.isBuffer(given) ? given : Buffer.from(textOf(given), "latin1"));
    const isKey = Buffer.isBuffer(given) || given.kind === "key";
    const found = isKey ? keyWithDigest(keys, presented) : keyOfDerived(keys, given);
    // What is derived counts as its key: one that was accepted from there before, and nothing more to remember.
    guesses?.check(request.ip, found?.digest ?? presented);
    if (found) {
      guesses?.succeeded(request.ip, found.digest);
      response.locals.principal = found.principal;
      response.locals.keyDigest = found.digest;
      response.locals.isDerived = !isKey;
      return next();
    }
    await guesses?.failed(request.ip);
    response.set("WWW-Authenticate", 'Bearer error="invalid_token"');
    throw new ClientError("unauthorized", "Invalid API key");
  };
}

/**
 * A token that stands for the request's own key in one matter alone, and ends with the key: its holder is the key's principal where a
 * protocol asks for tokens of this purpose. Every server with the same keys knows it, and nothing is stored.
 *
 * @param purpose what it is good for: a protocol, and what it names there.
 */
export function derivedToken(response: Response, purpose: string): string {
  const digest: Buffer | undefined = response.locals.keyDigest;
  return digest === undefined ? "anonymous" : tokenOf(digest, purpose);
}

function tokenOf(digest: Buffer, purpose: string): string {
  return createHmac("sha256", digest).update(purpose).digest("base64url");
}

/** Lets a request pass whose principal has the scope; else {@link ClientError} 403 `missing_scope`. */
export function requireScope(scope: Scope): RequestHandler {
  return (_request, response, next) => {
    if (principalOf(response).scopes.has(scope)) return next();
    next(new ClientError("missing_scope", `This API key lacks the scope "${scope}"`));
  };
}

/** Refuses what was derived from a key (`derivedToken`): {@link ClientError} 401. It says who its holder is in one matter alone. */
export const requireKey: RequestHandler = (_request, response, next) => {
  if (response.locals.isDerived !== true) return next();
  response.set("WWW-Authenticate", "Bearer");
  throw new ClientError("unauthorized", "This token is not valid here: an API key is needed");
};

/** @throws {Error} if {@link authenticate} did not run before: a route that forgot it must fail, not let everybody in. */
export function principalOf(response: Response): Principal {
  const principal: Principal | undefined = response.locals.principal;
  if (!principal) throw new Error("authenticate() has not run for this request");
  return principal;
}

/** Id of who asks; null: the request was refused before that was known. */
export function knownPrincipal(response: Response): string | null {
  const principal: Principal | undefined = response.locals.principal;
  return principal?.id ?? null;
}

/**
 * Refuses to offer Python to a whole network by accident.
 *
 * @throws {StartupError} if `HOST` is not a loopback address (or `localhost`), there are no keys, and `ALLOW_ANONYMOUS`
 *   is off.
 */
export function checkBinding(config: Pick<Config, "HOST" | "API_KEYS" | "API_KEY" | "ALLOW_ANONYMOUS">): void {
  if (isLoopback(config.HOST) || config.ALLOW_ANONYMOUS || parseApiKeys(config).length > 0) return;
  throw new StartupError(
    `HOST=${config.HOST} lets others than this machine run code here, and no API keys are set. ` +
      "Set API_KEYS, or HOST=127.0.0.1, or ALLOW_ANONYMOUS=true if everybody who can connect may.",
  );
}

function parseEntry(entry: string, position: number): ApiKey {
  const problem = (what: string) =>
    new StartupError(`API_KEYS, entry ${position}: ${what}. An entry is name:key or name:key:scope+scope.`);
  const [name = "", key = "", scopes, ...rest] = entry.split(":").map((part) => part.trim());
  if (key === "" || rest.length > 0) throw problem("it does not have two or three parts between colons");
  if (!NAME.test(name)) throw problem("the name must be 1 to 64 letters, digits, dots, hyphens or underscores");
  if (key.length < MIN_KEY_CHARACTERS) throw new StartupError(`API_KEYS, entry ${position}: ${TOO_SHORT}`);
  if (UNSENDABLE.test(key)) throw problem(HAS_UNSENDABLE);
  if (name === ANONYMOUS.id) throw problem(`the name "${ANONYMOUS.id}" stands for requests without a key`);
  if (scopes === undefined) return apiKey(name, key, WITHOUT_SCOPES);
  const given = scopes.split("+");
  // What stands there may be a part of the key, so it is not repeated.
  if (!given.every(isScope)) throw problem(`the scopes must be of ${SCOPES.join(", ")}`);
  return apiKey(name, key, given);
}

function isScope(text: string): text is Scope {
  return (SCOPES as readonly string[]).includes(text);
}

function apiKey(name: string, key: string, scopes: readonly Scope[]): ApiKey {
  return { digest: digestOf(Buffer.from(key)), principal: { id: name, name, scopes: new Set(scopes) } };
}

function digestOf(key: Buffer): Buffer {
  return createHash("sha256").update(key).digest();
}

/** The key as the bytes that came: Node decodes headers as Latin-1. */
function presentedKey(request: Request): Buffer | undefined {
  const bearer = /^Bearer +(\S.*)$/i.exec(request.get("Authorization") ?? "")?.[1];
  const key = bearer ?? request.get("X-API-Key");
  if (key !== undefined && key !== "") return Buffer.from(key, "latin1");
  return keyInSubprotocols(request);
}

/** Compares with every key in constant time, so that time tells neither how much matches nor which. */
function keyWithDigest(keys: readonly ApiKey[], digest: Buffer): ApiKey | undefined {
  let found: ApiKey | undefined;
  for (const key of keys) if (timingSafeEqual(digest, key.digest)) found = key;
  return found;
}

/** The key whose token this is, or whose token has signed. */
function keyOfDerived(keys: readonly ApiKey[], derived: Exclude<Credential, { kind: "key" }>): ApiKey | undefined {
  const given = digestOf(Buffer.from(textOf(derived)));
  let found: ApiKey | undefined;
  for (const key of keys) {
    const token = tokenOf(key.digest, derived.purpose);
    const right = derived.kind === "token" ? token : derived.sign(token);
    if (timingSafeEqual(given, digestOf(Buffer.from(right)))) found = key;
  }
  return found;
}

function textOf(credential: Credential): string {
  if (credential.kind === "key") return credential.key;
  return credential.kind === "token" ? credential.token : credential.signature;
}

function isLoopback(host: string): boolean {
  if (host.toLowerCase() === "localhost") return true;
  return isIP(host) !== 0 && ipaddr.process(host).range() === "loopback";
}
