import { hashFile } from "./blob-folder.ts";

/** Files that this process has read to the end since it started, each once; the rest is not believed until it is. */
export class VerifiedFiles {
  readonly #verified = new Set<string>();

  /** @returns whether the file has this SHA-256. @throws the file system's error. */
  async matches(file: string, sha256: string): Promise<boolean> {
    if (this.#verified.has(keyOf(file, sha256))) return true;
    if ((await hashFile(file)) !== sha256) return false;
    this.add(file, sha256);
    return true;
  }

  /** Takes over that a file has this SHA-256: from who has just written it. */
  add(file: string, sha256: string): void {
    this.#verified.add(keyOf(file, sha256));
  }
}

function keyOf(file: string, sha256: string): string {
  return `${sha256} ${file}`;
}
