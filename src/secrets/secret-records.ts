import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { makeFolder } from "../shared/make-folder.ts";
import { ReplaceableFile } from "../shared/replaceable-file.ts";
import { KeyedQueue } from "../shared/serial-queue.ts";
import { storageError } from "../shared/storage-trouble.ts";
import type { Sealed } from "./seal.ts";

/** A principal's secret as it is stored. */
export interface SecretRecord {
  readonly sealed: Sealed;
  /** Origins that it may be sent to; null: wherever its owner's rules say. */
  readonly hosts: readonly string[] | null;
}

/**
 * Where principals' secrets are kept: on this server's disk, or where all servers of a fleet see them. A call that has returned is durable.
 *
 * Every method throws {@link ClientError} 503 `store_unavailable`, 507 `storage_full`.
 */
export interface SecretRecords {
  get(principal: string, name: string): Promise<SecretRecord | null>;
  /** All of a principal's, by name. */
  list(principal: string): Promise<ReadonlyMap<string, SecretRecord>>;
  /** @returns false, and stores nothing, if it would be one more than `max`. */
  put(principal: string, name: string, record: SecretRecord, max: number): Promise<boolean>;
  /** @returns whether there was one. */
  delete(principal: string, name: string): Promise<boolean>;
}

/** A principal's name may have any case, and file systems that tell none apart are common. */
export function ownerId(principal: string): string {
  return createHash("sha256").update(principal).digest("hex");
}

/** One file for each principal. One process at a time. */
export class DiskSecrets implements SecretRecords {
  readonly #folder: string;
  readonly #turns = new KeyedQueue();

  constructor(folder: string) {
    this.#folder = folder;
  }

  async get(principal: string, name: string): Promise<SecretRecord | null> {
    return (await this.list(principal)).get(name) ?? null;
  }

  async list(principal: string): Promise<Map<string, SecretRecord>> {
    try {
      return new Map(JSON.parse(await readFile(this.#file(principal), "utf8")) as [string, SecretRecord][]);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return new Map();
      throw storageError(error) ?? error;
    }
  }

  async put(principal: string, name: string, record: SecretRecord, max: number): Promise<boolean> {
    return await this.#change(principal, (secrets) => {
      if (!secrets.has(name) && secrets.size >= max) return false;
      secrets.set(name, record);
      return true;
    });
  }

  async delete(principal: string, name: string): Promise<boolean> {
    return await this.#change(principal, (secrets) => secrets.delete(name));
  }

  /** @param change whether what it has changed is to be stored. */
  async #change(principal: string, change: (secrets: Map<string, SecretRecord>) => boolean): Promise<boolean> {
    return await this.#turns.run(principal, async () => {
      const secrets = await this.list(principal);
      const before = secrets.size;
      if (!change(secrets)) return false;
      const text = JSON.stringify([...secrets]);
      try {
        await makeFolder(this.#folder, 0o700);
        const file = new ReplaceableFile(this.#file(principal), this.#folder);
        // A deletion has room kept for it.
        if (secrets.size >= before) await file.reserve(text.length);
        await file.replace(text);
      } catch (error) {
        throw storageError(error) ?? error;
      }
      return true;
    });
  }

  #file(principal: string): string {
    return path.join(this.#folder, `${ownerId(principal)}.json`);
  }
}
