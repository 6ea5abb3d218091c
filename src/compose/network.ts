import { readFileSync } from "node:fs";
import { z } from "zod";
import { openNetwork } from "../egress/egress.ts";
import { NetworkRules, NetworkRulesError, networkInput } from "../egress/network-rules.ts";
import { McpServers } from "../mcp-servers/mcp-servers.ts";
import { readMcpServers } from "../mcp-servers/server-file.ts";
import { readOperatorSecrets } from "../secrets/operator-secrets.ts";
import { Seal } from "../secrets/seal.ts";
import type { SecretRecords } from "../secrets/secret-records.ts";
import { Secrets } from "../secrets/secrets.ts";
import { CallerNetwork } from "../service/caller-network.ts";
import { StartupError } from "../shared/errors.ts";
import type { Config } from "../shared/settings.ts";
import { principalsOf } from "./principals.ts";

/** Name in PRINCIPALS_FILE for those that it does not name. No key has it. */
const ALL_OTHERS = "*";

const principalsFile = z.record(z.string(), z.strictObject({ network: networkInput.optional() }));

/**
 * The operator's secrets, and those of callers.
 *
 * @param records null: to check the settings alone.
 * @throws {StartupError} if a setting, or a file that it names, cannot be used.
 */
export function openSecrets(config: Config, records: SecretRecords | null): Secrets {
  const { SECRETS, SECRETS_FILE, SECRETS_KEY, SECRETS_KEY_FILE } = config;
  if (SECRETS_KEY !== "" && SECRETS_KEY_FILE !== "") {
    throw new StartupError("SECRETS_KEY and SECRETS_KEY_FILE are both set: one of them has to go.");
  }
  return new Secrets({
    operator: readOperatorSecrets({ SECRETS, SECRETS_FILE: readSettingFile("SECRETS_FILE", SECRETS_FILE) }),
    seal: new Seal(SECRETS_KEY || readSettingFile("SECRETS_KEY_FILE", SECRETS_KEY_FILE)),
    records: records ?? NO_RECORDS,
  });
}

/** The MCP servers that callers' code may call. @throws {StartupError} if MCP_SERVERS_FILE cannot be used. */
export function openMcpServers(config: Config, secrets: Secrets): McpServers {
  const servers = readMcpServers(config, principalsOf(config), (name) => secrets.operatorValue(name));
  return new McpServers(servers, secrets.operatorValues);
}

/** What callers' code may reach. @throws {StartupError} if NETWORK_ALLOW or PRINCIPALS_FILE cannot be used. */
export function openCallerNetwork(config: Config, secrets: Secrets): CallerNetwork {
  const egress = openNetwork(config);
  const rules = readPrincipals(config);
  for (const [name, own] of rules) {
    try {
      for (const { name: secret } of egress.access([{ author: "operator", rules: own }]).secretsOf("operator")) {
        const isKept = config.SECRETS_KEY !== "" || config.SECRETS_KEY_FILE !== "";
        if (isKept || secrets.operatorValue(secret) !== null) continue;
        throw new NetworkRulesError(
          `network.rules names the secret ${secret}, which is neither in SECRETS_FILE nor in SECRETS`,
        );
      }
    } catch (error) {
      throw error instanceof NetworkRulesError ? wrongPrincipals(`${JSON.stringify(name)}: ${error.message}`) : error;
    }
  }
  return new CallerNetwork({
    egress,
    secrets,
    rulesOf: (principal) => rules.get(principal) ?? rules.get(ALL_OTHERS) ?? null,
  });
}

const wrongPrincipals = (what: string) =>
  new StartupError(
    `PRINCIPALS_FILE: ${what.replace(/\.$/, "")}. It is a JSON object such as {"alice": {"network": {"allowOut": ["api.github.com"]}}}.`,
  );

function readPrincipals(config: Config): ReadonlyMap<string, NetworkRules> {
  const text = readSettingFile("PRINCIPALS_FILE", config.PRINCIPALS_FILE);
  if (text === "") return new Map();
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw wrongPrincipals(`the file cannot be read as JSON (${(error as Error).message})`);
  }
  const checked = principalsFile.safeParse(parsed);
  if (!checked.success) throw wrongPrincipals(z.prettifyError(checked.error));
  const known = principalsOf(config);
  const rules = new Map<string, NetworkRules>();
  for (const [name, { network }] of Object.entries(checked.data)) {
    if (name !== ALL_OTHERS && !known.has(name)) {
      throw wrongPrincipals(`${JSON.stringify(name)} is no key's name. There are ${[...known].join(", ")}`);
    }
    try {
      rules.set(name, new NetworkRules(network ?? {}));
    } catch (error) {
      throw error instanceof NetworkRulesError ? wrongPrincipals(`${JSON.stringify(name)}: ${error.message}`) : error;
    }
  }
  return rules;
}

/** @param file empty: none. @throws {StartupError} if it cannot be read. */
function readSettingFile(setting: string, file: string): string {
  if (file === "") return "";
  try {
    return readFileSync(file, "utf8").trim();
  } catch (cause) {
    throw new StartupError(`${setting}: the file cannot be read (${(cause as NodeJS.ErrnoException).code}).`, {
      cause,
    });
  }
}

const NO_RECORDS: SecretRecords = {
  get: async () => null,
  list: async () => new Map(),
  put: async () => false,
  delete: async () => false,
};
