import { readFileSync } from "node:fs";
import { z } from "zod";
import { SECRET_NAME } from "../egress/network-rules.ts";
import { parseRuleHost, RULE_HOST_FORM } from "../egress/rule-host.ts";
import { StartupError } from "../shared/errors.ts";
import { problemOfValue } from "./secret-value.ts";

/** A secret that the operator has given. */
export interface OperatorSecret {
  readonly value: string;
  /** Origins to which rules of callers may send it; none: only the operator's own rules use it. */
  readonly hosts: ReadonlySet<string>;
  /** Whose rules may; null: everyone's. */
  readonly principals: ReadonlySet<string> | null;
}

const EXAMPLE = '{"GITHUB_TOKEN": "ghp_…", "WEATHER_KEY": {"value": "…", "hosts": ["api.weather.example"]}}';

const definitions = z.record(
  z.string(),
  z.union([
    z.string(),
    z.strictObject({
      value: z.string().optional(),
      /** A file that holds it, as Docker and Kubernetes mount them. */
      file: z.string().optional(),
      hosts: z.array(z.string()).optional(),
      principals: z.array(z.string()).optional(),
    }),
  ]),
);

/**
 * Reads the operator's secrets.
 *
 * @param sources JSON texts by the setting that each is from; one that is empty has none.
 * @throws {StartupError} that names the secret that cannot be used, and never what it is.
 */
export function readOperatorSecrets(sources: Readonly<Record<string, string>>): ReadonlyMap<string, OperatorSecret> {
  const secrets = new Map<string, OperatorSecret>();
  for (const [setting, text] of Object.entries(sources)) {
    if (text === "") continue;
    const problem = (what: string) => new StartupError(`${setting}: ${what}. It is a JSON object such as ${EXAMPLE}.`);
    let parsed: unknown;
    try {
      parsed = JSON.parse(text);
    } catch {
      // The parser's message quotes the text.
      throw problem("it cannot be read as JSON");
    }
    const checked = definitions.safeParse(parsed);
    if (!checked.success) {
      const where = checked.error.issues[0]?.path.join(".") ?? "";
      throw problem(`${where === "" ? "it" : JSON.stringify(where)} has another form`);
    }
    for (const [name, definition] of Object.entries(checked.data)) {
      const shown = JSON.stringify(name);
      if (!SECRET_NAME.test(name))
        throw problem(`${shown} is no name of letters, digits, dots, hyphens and underscores`);
      if (secrets.has(name)) throw problem(`${shown} is given twice`);
      const {
        value,
        file,
        hosts = [],
        principals,
      } = typeof definition === "string" ? { value: definition } : definition;
      if ((value === undefined) === (file === undefined)) throw problem(`${shown} needs a value or a file`);
      const secret = value ?? readSecretFile(file as string, () => problem(`the file of ${shown} cannot be read`));
      const wrong = problemOfValue(secret);
      if (wrong !== null) throw problem(`${shown} ${wrong}`);
      const origins = hosts.map((host) => {
        const target = parseRuleHost(host);
        if (target === null) throw problem(`${shown}: ${JSON.stringify(host)} is not a host. ${RULE_HOST_FORM}`);
        return target.origin;
      });
      secrets.set(name, {
        value: secret,
        hosts: new Set(origins),
        principals: principals === undefined ? null : new Set(principals),
      });
    }
  }
  return secrets;
}

/** A line end after it is the editor's. */
function readSecretFile(file: string, problem: () => StartupError): string {
  try {
    return readFileSync(file, "utf8").replace(/\r?\n$/, "");
  } catch {
    throw problem();
  }
}
