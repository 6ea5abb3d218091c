import fs from "node:fs";
import path from "node:path";

/**
 * Makes a folder, and those that it lies in.
 *
 * Node's `recursive` calls a read-only file system ENOENT (https://github.com/nodejs/node/issues/47098), which says nothing of
 * what to do; this throws what the first folder that is missing met with.
 *
 * @param mode of each that is made; default: as the process's umask has it.
 * @throws the file system's error.
 */
export async function makeFolder(folder: string, mode?: number): Promise<void> {
  try {
    await fs.promises.mkdir(folder, { recursive: true, mode });
  } catch (error) {
    makeFirstMissing(folder, error, mode);
  }
}

/** {@link makeFolder} for where nothing can be waited for. */
export function makeFolderSync(folder: string, mode?: number): void {
  try {
    fs.mkdirSync(folder, { recursive: true, mode });
  } catch (error) {
    makeFirstMissing(folder, error, mode);
  }
}

function makeFirstMissing(folder: string, error: unknown, mode: number | undefined): void {
  if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  let missing = path.resolve(folder);
  while (!fs.existsSync(path.dirname(missing))) missing = path.dirname(missing);
  fs.mkdirSync(missing, { mode });
  // It could be made: another process has removed what was there a moment ago.
  fs.mkdirSync(folder, { recursive: true, mode });
}
