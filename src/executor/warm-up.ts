import { readFileSync } from "node:fs";
import { internalJob } from "../sandbox/running-job.ts";
import type { Sandbox } from "../sandbox/sandbox.ts";
import type { Verdict } from "../wire/guest-messages.ts";

export const WARM_UP = readFileSync(new URL("../programs/warm_up.py", import.meta.url), "utf8");
const TIMEOUT_MS = 10_000;

/**
 * Has a new sandbox run what most programs use. V8 compiles a function of the interpreter when it is first called, so the first program in a
 * sandbox takes 20 to 45 ms longer than the same one later; after this it takes 5 [measured].
 *
 * @returns what can be done with the sandbox after it.
 */
export async function warmUp(sandbox: Sandbox): Promise<Verdict> {
  await sandbox.execute(internalJob(WARM_UP, TIMEOUT_MS));
  return await sandbox.idle;
}
