import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";

const NAME = "pyodide-express-tests-";

/** What tests leave behind goes with the run: one folder for the temporary files of all its processes. */
export default function setup(): (() => void) | undefined {
  // Another project of the same run has made it.
  if (path.basename(os.tmpdir()).startsWith(NAME)) return;
  const folder = mkdtempSync(path.join(os.tmpdir(), NAME));
  // Some tests are of servers that are another user's.
  chmodSync(folder, 0o755);
  process.env.TMPDIR = folder;
  return () => rmSync(folder, { recursive: true, force: true });
}
