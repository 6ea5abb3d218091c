import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";

const made: string[] = [];
process.once("exit", () => {
  for (const folder of made) rmSync(folder, { recursive: true, force: true });
});

/**
 * Makes a new folder for a test. It is deleted when the process ends, if the test has not done so.
 *
 * @param name what the folder's name begins with, for people who look into the system's folder of temporary files.
 */
export function temporaryFolder(name = "pyodide-express"): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), `${name}-`));
  made.push(folder);
  return folder;
}
