import { randomBytes } from "node:crypto";
import fs from "node:fs/promises";
import path from "node:path";
import { syncFolder, writeDurably } from "../shared/durable-file.ts";
import { makeFolder } from "../shared/make-folder.ts";

/** A name of ours, or of an older version's: below the folder of a principal, or by the content's hash. */
const NAME = /^([0-9a-f]{32}\/)?[0-9a-f]{64}$/;

/**
 * Large contents of a `SessionDatabase`, each in a file of its own.
 *
 * A name is drawn anew for each write, so that no write meets the deletion of an equal content, and none shows that another
 * principal has it.
 */
export class ContentFiles {
  readonly #folder: string;
  readonly #incoming: string;

  constructor(directory: string) {
    this.#folder = path.join(directory, "blobs");
    this.#incoming = path.join(directory, "incoming");
  }

  /** Makes the folders, and removes what a crash left behind: what was not written to its end, and what nothing refers to. */
  async prepare(referenced: ReadonlySet<string>): Promise<void> {
    for (const folder of [this.#folder, this.#incoming]) await makeFolder(folder, 0o700);
    for (const name of await fs.readdir(this.#incoming)) await fs.rm(path.join(this.#incoming, name), { force: true });
    for (const entry of await fs.readdir(this.#folder, { recursive: true, withFileTypes: true })) {
      const file = path.join(entry.parentPath, entry.name);
      const isGarbage = entry.isFile() && !referenced.has(path.relative(this.#folder, file));
      if (isGarbage) await fs.rm(file, { force: true });
    }
  }

  static newName(): string {
    return randomBytes(32).toString("hex");
  }

  /** Writes contents durably, by name. Until the database names them they are garbage, and harmless. */
  async write(contents: ReadonlyMap<string, Uint8Array>): Promise<void> {
    for (const [name, bytes] of contents) await writeDurably(this.#file(name), this.#incoming, bytes);
    await syncFolder(this.#folder);
  }

  async read(name: string): Promise<Uint8Array> {
    return await fs.readFile(this.#file(name));
  }

  async delete(name: string): Promise<void> {
    await fs.rm(this.#file(name), { force: true });
  }

  #file(name: string): string {
    if (!NAME.test(name)) throw new Error("not a content's name");
    return path.join(this.#folder, name);
  }
}
