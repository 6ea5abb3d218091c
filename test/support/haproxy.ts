import { writeFileSync } from "node:fs";
import path from "node:path";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { isInstalled } from "./installed.ts";
import { runProxy, type TestProxy } from "./proxy.ts";

/** Debian has it where an ordinary user's PATH does not lead. */
const HAPROXY = ["haproxy", "/usr/sbin/haproxy"].find((program) => isInstalled(program, "-v"));

export const hasHaproxy = HAPROXY !== undefined;

/** @param url where it listens. @param probe a path on which a server behind it answers. */
export async function runHaproxy(text: string, url: string, probe: string): Promise<TestProxy> {
  const file = path.join(temporaryFolder("haproxy"), "haproxy.cfg");
  writeFileSync(file, text);
  return await runProxy({ command: [HAPROXY as string, "-db", "-f", file], url, probe, endBy: "SIGKILL" });
}
