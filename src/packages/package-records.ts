import { createHash } from "node:crypto";
import { statSync } from "node:fs";
import { readdir, readFile, rm } from "node:fs/promises";
import path from "node:path";
import { z } from "zod";
import { writeAtomically } from "./kept-archives.ts";
import { storageError } from "./package-error.ts";

/** What a principal has installed in one environment: enough to have the same files again, wherever their cache is gone. */
export const packageRecord = z.object({
  version: z.literal(1),
  principal: z.string(),
  environment: z.string(),
  /** Requirements that were asked for by name. */
  requested: z.array(z.string()),
  packages: z.array(
    z.object({
      name: z.string(),
      key: z.string(),
      version: z.string(),
      filename: z.string(),
      format: z.enum(["wheel", "dynlib"]),
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
      source: z.string(),
      /** As the package states them. */
      requires: z.array(z.string()),
      dependsOn: z.array(z.string()),
    }),
  ),
});

export type PackageRecord = z.infer<typeof packageRecord>;
export type InstalledPackage = PackageRecord["packages"][number];

export interface StampedRecord {
  readonly record: PackageRecord;
  /** Another one after each change; null: nothing is stored. */
  readonly stamp: string | null;
}

/** Where it is kept what principals have installed: on this server's disk, or where all servers of a fleet see it. */
export interface PackageRecords {
  /** The stamp alone. Asked before every execution. */
  stamp(principal: string, environment: string): Promise<string | null>;
  read(principal: string, environment: string): Promise<StampedRecord>;
  /** @returns false, and writes nothing, if the record was changed since it was `stamp`. */
  write(record: PackageRecord, stamp: string | null): Promise<boolean>;
  clear(principal: string, environment: string): Promise<void>;
  /** SHA-256 of every file that a principal has installed: enough to build all environments again. */
  wheels(): Promise<ReadonlySet<string>>;
}

export function emptyRecord(principal: string, environment: string): PackageRecord {
  return { version: 1, principal, environment, requested: [], packages: [] };
}

export function recordId(principal: string, environment: string): string {
  return createHash("sha256")
    .update(JSON.stringify([principal, environment]))
    .digest("hex");
}

const MAX_FILES_KNOWN = 10_000;

/** One JSON file for each principal and environment. One process at a time, in which changes to one of them take turns. */
export class DiskPackageRecords implements PackageRecords {
  readonly #folder: string;
  /** Paths by principal and environment: each execution asks for one, and it takes a hash to make. */
  readonly #files = new Map<string, string>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /**
   * Changes with every write, since each puts a new file in place. Synchronously: every execution asks, and a thread's answer costs thirty
   * times the look itself [measured].
   */
  async stamp(principal: string, environment: string): Promise<string | null> {
    try {
      const found = statSync(this.#file(principal, environment), { bigint: true, throwIfNoEntry: false });
      return found ? `${found.ino} ${found.mtimeNs} ${found.size}` : null;
    } catch (error) {
      throw storageError(error) ?? error;
    }
  }

  async read(principal: string, environment: string): Promise<StampedRecord> {
    // Before the content: a change in between then shows as one that is still to come.
    const stamp = await this.stamp(principal, environment);
    try {
      const text = await readFile(this.#file(principal, environment), "utf8");
      return { record: packageRecord.parse(JSON.parse(text)), stamp };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw storageError(error) ?? error;
      return { record: emptyRecord(principal, environment), stamp: null };
    }
  }

  async write(record: PackageRecord): Promise<boolean> {
    await writeAtomically(this.#file(record.principal, record.environment), JSON.stringify(record));
    return true;
  }

  async clear(principal: string, environment: string): Promise<void> {
    await rm(this.#file(principal, environment), { force: true });
  }

  async wheels(): Promise<ReadonlySet<string>> {
    const wheels = new Set<string>();
    for (const name of await readdir(this.#folder).catch(() => [])) {
      if (!name.endsWith(".json")) continue;
      const text = await readFile(path.join(this.#folder, name), "utf8").catch(() => null);
      for (const { sha256 } of text === null ? [] : packageRecord.parse(JSON.parse(text)).packages) wheels.add(sha256);
    }
    return wheels;
  }

  #file(principal: string, environment: string): string {
    const key = JSON.stringify([principal, environment]);
    let file = this.#files.get(key);
    if (file === undefined) {
      file = path.join(this.#folder, `${recordId(principal, environment)}.json`);
      if (this.#files.size >= MAX_FILES_KNOWN) this.#files.clear();
      this.#files.set(key, file);
    }
    return file;
  }
}
