import { readFile } from "node:fs/promises";
import { z } from "zod";
import { StartupError } from "../shared/errors.ts";
import type { Config } from "../shared/settings.ts";

/** What an operator, or a default, says an environment is. */
export interface EnvironmentDefinition {
  readonly name: string;
  /** Requirements as PEP 508 writes them. */
  readonly packages: readonly string[];
  /** Modules to have imported in the image; default: those of the packages that were asked for. */
  readonly imports?: readonly string[] | undefined;
}

export const STDLIB = "stdlib";
export const DEFAULT = "default";

const NAME = /^[a-z0-9][a-z0-9_-]{0,63}$/;
const definitionsFile = z.record(
  z.string(),
  z.strictObject({ packages: z.array(z.string()), imports: z.array(z.string()).optional() }),
);

/**
 * Reads which environments there are to be.
 *
 * @throws {StartupError} if the file that ENVIRONMENTS_FILE names cannot be used.
 */
export async function loadDefinitions(config: Config): Promise<readonly EnvironmentDefinition[]> {
  const definitions: EnvironmentDefinition[] = [];
  if (config.PYODIDE_PACKAGES.length > 0) definitions.push({ name: DEFAULT, packages: config.PYODIDE_PACKAGES });
  if (config.ENVIRONMENTS_FILE !== "") {
    const problem = (what: string, cause?: unknown) =>
      new StartupError(
        `ENVIRONMENTS_FILE: ${what}. It is a JSON object such as {"plots": {"packages": ["numpy", "pillow"]}}.`,
        { cause },
      );
    let parsed: unknown;
    try {
      parsed = JSON.parse(await readFile(config.ENVIRONMENTS_FILE, "utf8"));
    } catch (cause) {
      throw problem(`the file cannot be read as JSON (${(cause as Error).message})`, cause);
    }
    const checked = definitionsFile.safeParse(parsed);
    if (!checked.success) throw problem(z.prettifyError(checked.error));
    for (const [name, definition] of Object.entries(checked.data)) {
      if (!NAME.test(name)) {
        throw problem(`${JSON.stringify(name)}: a name has lower-case letters, digits, hyphens and underscores`);
      }
      if (name === STDLIB) throw problem(`"${STDLIB}" is built in`);
      const index = definitions.findIndex((other) => other.name === name);
      definitions.splice(index < 0 ? definitions.length : index, index < 0 ? 0 : 1, { name, ...definition });
    }
  }
  return definitions;
}
