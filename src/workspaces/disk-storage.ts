import fs from "node:fs/promises";
import path from "node:path";
import { BlobFolder } from "../shared/blob-folder.ts";
import { syncFolder } from "../shared/durable-file.ts";
import { ReplaceableFile } from "../shared/replaceable-file.ts";
import { SerialQueue } from "../shared/serial-queue.ts";
import { storageError, troubleOf } from "../shared/storage-trouble.ts";
import type { NewContents, ReceivedBlob, Snapshot, WorkspaceStorage } from "./storage.ts";
import { WorkspaceIndex } from "./workspace-index.ts";

/** One workspace that is in use: its index in memory, its blobs, and the queue in which changes to it take turns. */
export class DiskWorkspace implements WorkspaceStorage {
  readonly #blobs: BlobFolder;
  readonly #folder: string;
  readonly #principal: string;
  readonly #indexFile: ReplaceableFile;
  /** A workspace of which nothing was stored yet has no folder: looking at it needs no room on the disk. */
  #isMade: boolean;
  readonly #snapshots = new Map<WorkspaceIndex, number>();
  /** Blobs that the current index does not need; a snapshot still may. */
  readonly #garbage = new Set<string>();
  #index: WorkspaceIndex;
  /** This server's changes do not get into each other's way. */
  readonly #turns = new SerialQueue();
  #closed = false;

  private constructor(folder: string, principal: string, index: WorkspaceIndex | undefined, blobs: BlobFolder) {
    this.#folder = folder;
    this.#principal = principal;
    this.#index = index ?? WorkspaceIndex.empty(Date.now());
    this.#isMade = index !== undefined;
    this.#blobs = blobs;
    this.#indexFile = new ReplaceableFile(indexFile(folder), path.join(folder, "incoming"));
  }

  /** @throws {Error} if there is an index that cannot be read; an empty workspace in its place would lose the files. */
  static async load(folder: string, principal: string): Promise<DiskWorkspace> {
    const blobs = new BlobFolder(path.join(folder, "blobs"), path.join(folder, "incoming"));
    try {
      const index = await readIndex(indexFile(folder));
      if (index) await blobs.clean(index.blobs);
      return new DiskWorkspace(folder, principal, index, blobs);
    } catch (error) {
      throw storageError(error) ?? error;
    }
  }

  get entryCount(): number {
    return this.#index.entryCount;
  }

  async current(): Promise<WorkspaceIndex> {
    return this.#index;
  }

  async snapshot(): Promise<Snapshot> {
    const index = this.#index;
    this.#snapshots.set(index, (this.#snapshots.get(index) ?? 0) + 1);
    let released = false;
    const release = async () => {
      if (released) return;
      released = true;
      const left = (this.#snapshots.get(index) ?? 1) - 1;
      if (left > 0) return void this.#snapshots.set(index, left);
      this.#snapshots.delete(index);
      if (this.#garbage.size > 0) await this.#turns.run(() => this.#sweep());
    };
    return { index, read: (blob) => this.#blobs.read(blob), release };
  }

  async receive(...request: Parameters<BlobFolder["receive"]>): Promise<DiskReceivedBlob> {
    const { sha256, size, temporary } = await this.#turns
      .run(() => this.#make())
      .then(() => this.#blobs.receive(...request))
      .catch((error: unknown) => {
        throw storageError(error) ?? error;
      });
    return { sha256, size, temporary, drop: () => this.#blobs.drop({ sha256, size, temporary }) };
  }

  change(plan: (current: WorkspaceIndex) => WorkspaceIndex, contents: NewContents = {}): Promise<void> {
    return this.#turns.run(async () => {
      if (this.#closed) throw new Error("the workspace store is closed");
      const current = this.#index;
      const next = plan(current);
      if (next === current) return;
      const json = next.toJson(this.#principal);
      try {
        await this.#make();
        await this.#store(contents, (sha256) => next.blobs.has(sha256) && !current.blobs.has(sha256));
        await this.#reserve(current, json);
        await this.#writeIndex(current, next, json);
      } catch (error) {
        this.#addGarbage(next, current);
        await this.#sweep();
        throw storageError(error) ?? error;
      }
      this.#index = next;
      this.#addGarbage(current, next);
      await this.#sweep();
      // A deletion may have used up the room for the next; now there is some.
      await this.#indexFile.reserve(json.length).catch(() => {});
    });
  }

  /** Waits for the changes that have begun; later ones fail. */
  close(): Promise<void> {
    return this.#turns.run(async () => {
      this.#closed = true;
    });
  }

  async #make(): Promise<void> {
    if (this.#isMade) return;
    await this.#blobs.make();
    await syncFolder(path.dirname(this.#folder));
    this.#isMade = true;
  }

  /** Before something is added: what cannot be deleted again on a full disk is not stored. */
  async #reserve(current: WorkspaceIndex, json: string): Promise<void> {
    const bytes = Buffer.byteLength(json);
    try {
      await this.#indexFile.reserve(bytes);
    } catch (error) {
      if (bytes > Buffer.byteLength(current.toJson(this.#principal))) throw error;
    }
  }

  /** Where even the room for a smaller index is missing, contents that it no longer needs go first. */
  async #writeIndex(current: WorkspaceIndex, next: WorkspaceIndex, json: string): Promise<void> {
    try {
      await this.#indexFile.replace(json);
    } catch (error) {
      const isLess = next.entryCount < current.entryCount && next.blobs.isSubsetOf(current.blobs);
      if (troubleOf(error) !== "full" || !isLess) throw error;
      this.#index = next;
      this.#addGarbage(current, next);
      await this.#sweep();
      await this.#indexFile.replace(json);
    }
  }

  async #store({ bytes, received }: NewContents, isMissing: (sha256: string) => boolean): Promise<void> {
    if (received && isMissing(received.sha256)) await this.#blobs.adopt(received as DiskReceivedBlob);
    await this.#blobs.write(new Map([...(bytes ?? [])].filter(([sha256]) => isMissing(sha256))));
  }

  #addGarbage(old: WorkspaceIndex, kept: WorkspaceIndex): void {
    for (const sha256 of old.blobs) if (!kept.blobs.has(sha256)) this.#garbage.add(sha256);
  }

  /** Only in turn: a change that is storing the same content must not lose it. */
  async #sweep(): Promise<void> {
    for (const sha256 of this.#garbage) {
      const needed = this.#index.blobs.has(sha256);
      const held = !needed && this.#snapshots.keys().some((index) => index.blobs.has(sha256));
      if (held) continue;
      // A blob that cannot be deleted now stays in the set for the next time; `prepare` would find it too.
      try {
        if (!needed) await this.#blobs.delete(sha256);
        this.#garbage.delete(sha256);
      } catch {}
    }
  }
}

interface DiskReceivedBlob extends ReceivedBlob {
  readonly temporary: string;
}

function indexFile(folder: string): string {
  return path.join(folder, "index.json");
}

async function readIndex(file: string): Promise<WorkspaceIndex | undefined> {
  let text: string;
  try {
    text = await fs.readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  try {
    return WorkspaceIndex.parse(text);
  } catch (cause) {
    throw new Error(`${file} is damaged`, { cause });
  }
}
