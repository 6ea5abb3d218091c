import { randomUUID } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import { archiveName, archiveNoteName, temporaryName } from "../shared/cache-layout.ts";
import { replaceFile } from "../shared/durable-file.ts";
import { makeFolder } from "../shared/make-folder.ts";
import { VerifiedFiles } from "../shared/verified-files.ts";
import { storageError } from "./package-error.ts";

/** What was learnt by making an archive, as it is kept beside it. */
export interface ArchiveNote {
  readonly format: number;
  readonly archive: { readonly sha256: string; readonly bytes: number };
}

/** Archives in a folder, found by a hash of what each was made of. */
export class KeptArchives {
  readonly folder: string;
  readonly #verified = new VerifiedFiles();

  constructor(folder: string) {
    this.folder = folder;
  }

  pathOf(sha256: string): string {
    return path.join(this.folder, archiveName(sha256));
  }

  notePathOf(key: string): string {
    return path.join(this.folder, archiveNoteName(key));
  }

  /**
   * @param key 64 hex digits.
   * @returns null if there is none of this format, or its archive is gone or damaged.
   */
  async find<Note extends ArchiveNote>(key: string, format: number): Promise<Note | null> {
    try {
      const note = JSON.parse(await readFile(this.notePathOf(key), "utf8")) as Note;
      if (note.format !== format) return null;
      const { sha256, bytes } = note.archive;
      const file = this.pathOf(sha256);
      if ((await stat(file)).size !== bytes) return null;
      return (await this.#verified.matches(file, sha256)) ? note : null;
    } catch {
      return null;
    }
  }

  /** Keeps a note on an archive that this process has written. @throws {PackageError} `package_storage` if the disk is full or read-only. */
  async remember(key: string, note: ArchiveNote): Promise<void> {
    const { sha256 } = note.archive;
    this.#verified.add(this.pathOf(sha256), sha256);
    await writeAtomically(this.notePathOf(key), JSON.stringify(note));
  }
}

/** @throws {PackageError} `package_storage` if the disk is full or read-only. */
export async function writeAtomically(file: string, text: string): Promise<void> {
  try {
    await makeFolder(path.dirname(file));
    await replaceFile(file, path.join(path.dirname(file), temporaryName(randomUUID())), text);
  } catch (error) {
    throw storageError(error) ?? error;
  }
}
