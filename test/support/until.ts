import { setTimeout as delay } from "node:timers/promises";

const POLL_MS = 10;

/** Resolves once `condition` holds; a test that waits for what never comes ends by its own timeout. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await delay(POLL_MS);
}
