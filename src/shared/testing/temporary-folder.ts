import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";

const made: string[] = [];
process.once("exit", () => {
  for (const folder of made) rmSync(folder, { recursive: true, force: true });
});

/**
 * Makes a new folder for a test, which need not delete it: it goes when the process ends, or with the run of tests
 * (test/support/run-folder.ts), which ends its processes by a signal.
 *
 * @param name what the folder's name begins with, for people who look into the system's folder of temporary files.
 */
export function temporaryFolder(name = "pyodide-express"): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), `${name}-`));
  made.push(folder);
  return folder;
}
