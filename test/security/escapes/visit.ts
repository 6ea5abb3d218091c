import { execFile } from "node:child_process";
import { rmSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { temporaryFolder } from "../../../src/shared/testing/temporary-folder.ts";
import type { Outcome, Visit } from "./intruder-host.ts";
import type { Mutant } from "./mutant.ts";
import { Bait } from "./target.ts";

export interface VisitOutcome extends Outcome {
  readonly connections: number;
  readonly won: string;
  /** Names of the attacks that succeeded. */
  readonly succeeded: readonly string[];
}

/** Lets the intruder try one of its suites in a mutant, and tells what came of it as the host saw it. */
export async function visit(
  mutant: Mutant,
  suite: Visit["suite"],
  isolation: Visit["isolation"],
): Promise<VisitOutcome> {
  const folder = temporaryFolder("intruder");
  const bait = await Bait.lay(folder);
  const won = `won-${bait.secret}`;
  const request: Visit = {
    suite,
    isolation,
    cacheDir: mutant.cacheDir,
    secretFile: bait.secretFile,
    marker: bait.newMarker(),
    port: bait.port,
    won,
  };
  try {
    const script = path.join(mutant.folder, "intruder-host.ts");
    const { stdout } = await promisify(execFile)(process.execPath, [script, JSON.stringify(request)]);
    const outcome: Outcome = JSON.parse(stdout);
    const succeeded = Object.entries(outcome.attacks).flatMap(([name, result]) => (result === true ? [name] : []));
    return { ...outcome, won, succeeded, connections: bait.takeConnections() };
  } finally {
    bait.close();
    rmSync(folder, { recursive: true, force: true });
  }
}
