import fs from "node:fs";
import path from "node:path";

/** Another process may take away what was made a moment ago. */
const MAX_TRIES = 3;

/**
 * Makes a folder, and those that it lies in.
 *
 * Node's `recursive` calls a read-only file system ENOENT (https://github.com/nodejs/node/issues/47098), which says nothing of what to
 * do, and where no folder can be made, as below `/proc`, it never returns; this throws what the first folder that is missing met with.
 *
 * @param mode of each that is made; default: as the process's umask has it.
 * @throws the file system's error.
 */
export async function makeFolder(folder: string, mode?: number): Promise<void> {
  try {
    await fs.promises.mkdir(folder, { mode });
  } catch {
    makeFolderSync(folder, mode);
  }
}

/** {@link makeFolder} for where nothing can be waited for. */
export function makeFolderSync(folder: string, mode?: number): void {
  for (let tries = 1; ; tries++) {
    try {
      fs.mkdirSync(folder, { mode });
      return;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EEXIST" && fs.statSync(folder, { throwIfNoEntry: false })?.isDirectory()) return;
      const parent = path.dirname(path.resolve(folder));
      if (code !== "ENOENT" || fs.existsSync(parent) || tries === MAX_TRIES) throw error;
      makeFolderSync(parent, mode);
    }
  }
}
