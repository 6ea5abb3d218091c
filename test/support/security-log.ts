import { readFile } from "node:fs/promises";
import path from "node:path";
import type { SecurityLogLine } from "../../src/security-log/event.ts";
import type { Config } from "../../src/shared/settings.ts";

/** The lines of `security.log`, oldest first. */
export async function readSecurityLog({ LOG_DIR }: Pick<Config, "LOG_DIR">): Promise<SecurityLogLine[]> {
  const text = await readFile(path.join(LOG_DIR, "security.log"), "utf8");
  return text
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as SecurityLogLine);
}
