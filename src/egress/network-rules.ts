import { z } from "zod";
import { ALLOWED_HOST_FORM, AllowList } from "./allow-list.ts";
import { isHeaderText, isSentHeader } from "./headers.ts";
import { parseRuleHost, RULE_HOST_FORM } from "./rule-host.ts";
import type { NetworkTarget } from "./target.ts";

const MAX_ENTRIES = 100;
const MAX_HOST_CHARACTERS = 300;
const MAX_TRANSFORMS = 8;
const MAX_HEADERS = 32;
const MAX_VALUE_CHARACTERS = 4096;
/** Of all hosts, names and values together: a session keeps them, and each of its executions reads them. */
const MAX_CHARACTERS = 128 * 1024;

/** Names the member, since a client is told the first problem alone. */
const wrong =
  (where: string, form: string) =>
  ({ code, keys }: { readonly code?: string; readonly keys?: unknown }) =>
    code === "unrecognized_keys" ? `${where} has no member ${JSON.stringify(keys)}.` : `${where} must be ${form}.`;

const transform = z.strictObject(
  {
    transform: z.strictObject(
      {
        headers: z.record(
          z.string(),
          z
            .string({ error: wrong("A header of network.rules", "a string") })
            .max(MAX_VALUE_CHARACTERS, `A header of network.rules is longer than ${MAX_VALUE_CHARACTERS} characters.`),
          { error: wrong("network.rules: headers", "an object of header names and values") },
        ),
      },
      { error: wrong("network.rules: transform", "an object with headers") },
    ),
  },
  { error: wrong("A rule of network.rules", "an object with a transform") },
);

/** What a request, a session or a key says of the network; the shape is E2B's. */
export const networkInput = z
  .strictObject(
    {
      allowOut: z
        .array(
          z.string({ error: wrong("An entry of network.allowOut", "a host") }).max(MAX_HOST_CHARACTERS, {
            error: `A host of network.allowOut is longer than ${MAX_HOST_CHARACTERS} characters.`,
          }),
          { error: wrong("network.allowOut", "an array of hosts") },
        )
        .max(MAX_ENTRIES, `network.allowOut has more than ${MAX_ENTRIES} hosts.`)
        .optional()
        .meta({
          description:
            "Hosts that may be reached, of those that the server allows: names, `*.` for subdomains, `:port` for other ports. Default: all of those.",
          example: ["api.github.com"],
        }),
      rules: z
        .record(
          z.string(),
          z
            .array(transform, { error: wrong("The rules of a host", "an array") })
            .max(MAX_TRANSFORMS, `A host of network.rules has more than ${MAX_TRANSFORMS} rules.`),
          { error: wrong("network.rules", "an object of hosts and their rules") },
        )
        .optional()
        .meta({
          description:
            "Headers that the server adds to requests to one host (https unless it says `http://`), after its last check of the address. " +
            "`${secret:NAME}` stands for a secret, which the code never sees.",
          example: {
            "api.github.com": [{ transform: { headers: { Authorization: "Bearer ${secret:GITHUB_TOKEN}" } } }],
          },
        }),
    },
    { error: wrong("network", "an object with allowOut and rules") },
  )
  .meta({ id: "Network", description: "What code may reach, and what hosts are told besides what it says." });

export type NetworkInput = z.output<typeof networkInput>;

/** Rules that cannot be used: `message` says which member, and what would be right. */
export class NetworkRulesError extends Error {
  override readonly name = "NetworkRulesError";
}

/** A header that is added to requests: text and names of secrets, by turns. */
export interface HeaderRule {
  readonly name: string;
  readonly parts: readonly ({ readonly text: string } | { readonly secret: string })[];
}

/** The rules of one host. */
export interface HostRules {
  readonly target: NetworkTarget;
  readonly headers: readonly HeaderRule[];
}

export const SECRET_NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/;

/** What one place says of the network, read. */
export class NetworkRules {
  /** Null: does not narrow. */
  readonly allowOut: AllowList | null;
  /** By origin. */
  readonly hosts: ReadonlyMap<string, HostRules>;

  /** @throws {NetworkRulesError} */
  constructor({ allowOut, rules = {} }: NetworkInput) {
    const problem = (text: string) =>
      new NetworkRulesError(`network.allowOut: ${JSON.stringify(text)} is not a host. ${ALLOWED_HOST_FORM}.`);
    this.allowOut = allowOut === undefined ? null : new AllowList(allowOut, problem);
    const hosts = new Map<string, HostRules>();
    if (charactersOf({ allowOut, rules }) > MAX_CHARACTERS) {
      throw new NetworkRulesError(`network has more than ${MAX_CHARACTERS} characters.`);
    }
    if (Object.keys(rules).length > MAX_ENTRIES) {
      throw new NetworkRulesError(`network.rules has more than ${MAX_ENTRIES} hosts.`);
    }
    for (const [name, transforms] of Object.entries(rules)) {
      const shown = JSON.stringify(name.slice(0, MAX_HOST_CHARACTERS));
      const target = name.length > MAX_HOST_CHARACTERS ? null : parseRuleHost(name);
      if (target === null) throw new NetworkRulesError(`network.rules: ${shown} is not a host. ${RULE_HOST_FORM}.`);
      if (hosts.has(target.origin)) throw new NetworkRulesError(`network.rules names ${target.origin} twice.`);
      const headers = transforms.flatMap(({ transform }) => Object.entries(transform.headers));
      hosts.set(target.origin, { target, headers: readHeaders(headers, name) });
    }
    this.hosts = hosts;
  }
}

function charactersOf({ allowOut = [], rules = {} }: NetworkInput): number {
  const sum = (texts: readonly string[]) => texts.reduce((total, { length }) => total + length, 0);
  const headers = Object.values(rules).flatMap((list) => list.map(({ transform }) => transform.headers));
  return sum(allowOut) + sum(Object.keys(rules)) + sum(headers.flatMap((of) => Object.entries(of).flat()));
}

function readHeaders(headers: readonly (readonly [string, string])[], host: string): HeaderRule[] {
  const where = `network.rules of ${host}`;
  if (headers.length > MAX_HEADERS) throw new NetworkRulesError(`${where}: more than ${MAX_HEADERS} headers.`);
  const names = new Set<string>();
  return headers.map(([name, value]) => {
    const shown = JSON.stringify(name.slice(0, 100));
    if (!isSentHeader(name)) throw new NetworkRulesError(`${where}: ${shown} is not the name of a header to be set.`);
    if (names.has(name.toLowerCase())) throw new NetworkRulesError(`${where}: the header ${shown} is set twice.`);
    names.add(name.toLowerCase());
    if (!isHeaderText(value)) {
      throw new NetworkRulesError(`${where}: the header ${shown} has a line end or another character it may not have.`);
    }
    return { name, parts: readTemplate(value, `${where}: the header ${shown}`) };
  });
}

/** `a${secret:B}c` is a, the secret B, c. What else stands in `${…}` is text. */
function readTemplate(value: string, where: string): HeaderRule["parts"] {
  return value
    .split(/(\$\{secret:[^}]*\}?)/)
    .filter((part) => part !== "")
    .map((part) => {
      if (!part.startsWith("${secret:")) return { text: part };
      const name = part.slice("${secret:".length, -1);
      if (!part.endsWith("}") || !SECRET_NAME.test(name)) {
        throw new NetworkRulesError(
          `${where} names no secret: it is \${secret:NAME}, with a name of 1 to 64 letters, digits, dots, hyphens and underscores, a letter first.`,
        );
      }
      return { secret: name };
    });
}
