import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import { writeAtomically } from "../packages/kept-archives.ts";
import { PackageError } from "../packages/package-error.ts";
import type { PackageSet } from "../packages/package-set.ts";
import { memoryName } from "../shared/cache-layout.ts";
import { VerifiedFiles } from "../shared/verified-files.ts";

/** What an environment came to when it was built. */
export interface EnvironmentManifest {
  readonly set: PackageSet;
  /** What was not available: requirement → why. */
  readonly missing: Readonly<Record<string, string>>;
}

/** `set` null: no package was available. */
type Saved = { readonly set: PackageSet | null } & Pick<EnvironmentManifest, "missing">;

/** Remembers beside the images what environments came to, so that the next start asks no source again. */
export class EnvironmentManifests {
  readonly #folder: string;
  readonly #verified = new VerifiedFiles();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Servers of one cache may mean different things by a name, so that what it is built from is part of the file's. */
  fileOf(name: string, inputs: unknown): string {
    return path.join(this.#folder, memoryName(name, keyOf(inputs).slice(0, 32)));
  }

  /**
   * @param inputs all that it was built from.
   * @returns null if it was never built, or from something else, or its archive is not whole.
   */
  async find(name: string, inputs: unknown): Promise<EnvironmentManifest | null> {
    try {
      const { set, missing } = await this.#read(name, inputs);
      if (set === null) return null;
      const { path: file, sha256, bytes } = set.archive;
      if ((await stat(file)).size !== bytes) return null;
      return (await this.#verified.matches(file, sha256)) ? { set, missing } : null;
    } catch {
      return null;
    }
  }

  /** @returns what was not available when it was built and came out without any package; null: it did not. */
  async findEmpty(name: string, inputs: unknown): Promise<EnvironmentManifest["missing"] | null> {
    try {
      const { set, missing } = await this.#read(name, inputs);
      return set === null ? missing : null;
    } catch {
      return null;
    }
  }

  async #read(name: string, inputs: unknown): Promise<Saved> {
    const saved = JSON.parse(await readFile(this.fileOf(name, inputs), "utf8")) as Saved & { readonly key: string };
    if (saved.key !== keyOf(inputs)) throw new Error("it was built from something else");
    return saved;
  }

  /** Where nothing can be written, as in a container with all it needs, the next start asks the sources again. */
  async save(name: string, inputs: unknown, { set, missing }: Saved): Promise<void> {
    await writeAtomically(this.fileOf(name, inputs), JSON.stringify({ key: keyOf(inputs), set, missing })).catch(
      (error) => {
        if (!(error instanceof PackageError)) throw error;
      },
    );
  }
}

/** A version of this software that remembers otherwise takes another number. */
const FORMAT = 4;

function keyOf(inputs: unknown): string {
  return createHash("sha256")
    .update(JSON.stringify([FORMAT, inputs]))
    .digest("hex");
}
