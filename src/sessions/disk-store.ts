import path from "node:path";
import { Worker } from "node:worker_threads";
import { type Blob, sha256Hex } from "../shared/blob-folder.ts";
import { ClientError } from "../shared/errors.ts";
import { FolderLock } from "../shared/folder-lock.ts";
import { steadyClock, steadyNowMs } from "../shared/steady-clock.ts";
import { StorageStartupError } from "../shared/storage-startup-error.ts";
import { storageError } from "../shared/storage-trouble.ts";
import { ContentFiles } from "./content-files.ts";
import type { Dropped, GivenContent, Outcome, SessionChange, SessionQuery, StoredContent } from "./database.ts";
import type { Answers, Batch, Opened, PlainError, ThreadOptions } from "./database-thread.ts";
import { checkShare, type SessionShares } from "./shares.ts";
import {
  endsAtMs,
  MissingBlobError,
  type NewSnapshot,
  type SessionLease,
  type SessionRecord,
  type SessionStore,
} from "./store.ts";

export interface DiskSessionsOptions {
  /** Host folder, `DATA_DIR/sessions`; made if it is not there. One process at a time. */
  readonly directory: string;
  readonly shares: SessionShares;
}

interface Asked<T, R> {
  readonly what: T;
  readonly resolve: (value: R) => void;
  readonly reject: (error: unknown) => void;
}

const NOTHING = { changes: [], queries: [] };

/** Larger contents are files of their own: in the database they would be written twice, and others would wait. */
const MAX_BYTES_IN_DATABASE = 256 * 1024;
/** Records that are known without asking, those used last. */
const MAX_KNOWN_RECORDS = 4096;

/**
 * Sessions on this machine's disk, durable once a call has returned:
 *
 *     <directory>/lock           held while a process uses the folder
 *     <directory>/index.sqlite   sessions, their states and small files (`database.ts`)
 *     <directory>/blobs/         large contents (`content-files.ts`), and what older versions have stored
 *     <directory>/incoming/      what is being written; emptied at start
 *     <directory>/reserve        room for deletions on a disk that is full (`reserve-file.ts`)
 *
 * A thread of its own waits for the disk, so that a slow one never stops the server. What is asked while it waits is its next
 * batch, and so shares one wait.
 *
 * A large content is durable before the database names it, and goes only when it names it no more: a crash at any point
 * leaves a session before a change or after it.
 */
export class DiskSessions implements SessionStore {
  onInterrupt: (id: string) => void = () => {};
  readonly #lock: FolderLock;
  readonly #thread: Worker;
  readonly #files: ContentFiles;
  readonly #shares: SessionShares;
  readonly #leases = new Map<string, DiskLease>();
  /** As they are stored. */
  readonly #records = new Map<string, SessionRecord>();
  readonly #deleting = new Set<Promise<void>>();
  #changes: Asked<SessionChange, Dropped>[] = [];
  #queries: Asked<SessionQuery, unknown>[] = [];
  /** What the thread is at. */
  #asked: { changes: Asked<SessionChange, Dropped>[]; queries: Asked<SessionQuery, unknown>[] } = NOTHING;
  #isWaiting = false;
  /** Why nothing can be asked any more. */
  #ended: Error | null = null;
  #onIdle: () => void = () => {};

  private constructor({ shares }: DiskSessionsOptions, lock: FolderLock, thread: Worker, files: ContentFiles) {
    this.#shares = shares;
    this.#lock = lock;
    this.#thread = thread;
    this.#files = files;
  }

  /** @throws {StartupError} if another process uses the folder, or the index is damaged. */
  static async open(options: DiskSessionsOptions): Promise<DiskSessions> {
    const { directory, shares } = options;
    const lock = new FolderLock(directory);
    const workerData: ThreadOptions = { file: path.join(directory, "index.sqlite"), shares };
    const thread = new Worker(new URL("database-thread.ts", import.meta.url), { workerData });
    try {
      const opened = await new Promise<Opened>((resolve, reject) => {
        thread.once("message", resolve).once("error", reject);
      });
      if ("error" in opened) throw opened.error;
      const files = new ContentFiles(directory);
      await files.prepare(new Set(opened.value.files));
      const store = new DiskSessions(options, lock, thread, files);
      thread.on("message", (answers: Answers) => store.#answer(answers));
      thread.on("error", (error) => store.#end(error as Error));
      thread.unref();
      return store;
    } catch (cause) {
      await thread.terminate();
      lock[Symbol.dispose]();
      throw new StorageStartupError({
        what: `The sessions in ${directory}`,
        folder: directory,
        setting: "DATA_DIR",
        damaged: "Restore the folder from a backup, or move it away to start without sessions.",
        cause,
      });
    }
  }

  async create(record: SessionRecord, maxOfPrincipal: number, from?: SessionLease): Promise<void> {
    await this.#change({ type: "create", record, maxOfPrincipal, from: from?.record.id ?? null, nowMs: steadyNowMs() });
  }

  async get(id: string): Promise<SessionRecord | undefined> {
    const record = this.#records.get(id) ?? ((await this.#query({ type: "get", id })) as SessionRecord | undefined);
    return record && endsAtMs(record) > steadyNowMs() ? record : undefined;
  }

  async list(principal: string): Promise<readonly SessionRecord[]> {
    return (await this.#query({ type: "list", principal, nowMs: steadyNowMs() })) as SessionRecord[];
  }

  async acquire(id: string, principal: string): Promise<SessionLease | undefined> {
    // This process is the only one, and the server lets one turn at a time have a session.
    if (this.#leases.has(id)) throw new Error("a session's lease is asked for twice");
    const record = await this.get(id);
    if (record?.principal !== principal) return undefined;
    const lease = new DiskLease(this, record);
    this.#leases.set(id, lease);
    return lease;
  }

  async ended(nowMs: number): Promise<readonly { id: string }[]> {
    return (await this.#query({ type: "ended", nowMs })) as { id: string }[];
  }

  async followClock(stepMs: number): Promise<void> {
    // What is compared meanwhile may find a session to end later, never earlier.
    if (stepMs < 0) steadyClock.follow(stepMs);
    try {
      await this.#change({ type: "move", stepMs });
    } catch (error) {
      if (stepMs < 0) steadyClock.follow(-stepMs);
      throw error;
    }
    if (stepMs > 0) steadyClock.follow(stepMs);
  }

  async deleteEnded(id: string, nowMs: number): Promise<void> {
    const record = this.#records.get(id) ?? ((await this.#query({ type: "get", id })) as SessionRecord | undefined);
    if (!record || this.#leases.has(id) || endsAtMs(record) > nowMs) return;
    await this.delete(id);
  }

  async announceInterrupt(): Promise<void> {
    // There is no other server.
  }

  async close(): Promise<void> {
    if (this.#ended === null) {
      if (this.#isWaiting) await new Promise<void>((resolve) => (this.#onIdle = resolve));
      const exited = new Promise((resolve) => this.#thread.once("exit", resolve));
      this.#end(new Error("the store is closed"));
      this.#thread.ref();
      this.#thread.postMessage("close");
      await exited;
    }
    await Promise.all(this.#deleting);
    this.#lock[Symbol.dispose]();
  }

  async read(id: string, blob: Blob): Promise<Uint8Array> {
    const stored = (await this.#query({ type: "read", id, sha256: blob.sha256 })) as StoredContent | undefined;
    if (!stored) throw new MissingBlobError("a content is missing or cut off");
    let { bytes } = stored;
    if (stored.file !== null) {
      bytes = await this.#files.read(stored.file).catch((cause: unknown) => {
        throw new MissingBlobError("a content is missing or cut off", { cause });
      });
    }
    if (bytes?.length !== blob.size) throw new MissingBlobError("a content is missing or cut off");
    if ((await sha256Hex(bytes)) !== blob.sha256) {
      throw new MissingBlobError("a content's checksum is wrong");
    }
    return bytes;
  }

  async commit(record: SessionRecord, snapshot: NewSnapshot | undefined): Promise<void> {
    if (!snapshot) {
      await this.#change({ type: "commit", record, snapshot: null, isDeletion: true });
      return;
    }
    try {
      await this.#commit(record, snapshot, MAX_BYTES_IN_DATABASE);
    } catch (error) {
      const isFull = error instanceof ClientError && error.code === "storage_full";
      // The room that is kept for deletions is the database's.
      if (!isFull || !snapshot.isDeletion) throw error;
      await this.#commit(record, snapshot, Number.POSITIVE_INFINITY);
    }
  }

  async #commit(record: SessionRecord, snapshot: NewSnapshot, maxBytesInDatabase: number): Promise<void> {
    const { blob, bytes, files, contents, isDeletion = false } = snapshot;
    const given: GivenContent[] = [];
    const large = new Map<string, Uint8Array>();
    for (const [sha256, content] of [[blob.sha256, bytes] as const, ...contents]) {
      const { length: size } = content;
      // A name for each write, so that none can meet another's deletion.
      const file = size > maxBytesInDatabase ? ContentFiles.newName() : null;
      if (file !== null) large.set(file, content);
      given.push({ sha256, size, file, bytes: file === null ? content : null });
    }
    try {
      if (large.size > 0) await this.#writeLarge(large);
      const needs = [blob, ...files];
      await this.#change({ type: "commit", record, snapshot: { sha256: blob.sha256, needs, given }, isDeletion });
    } catch (error) {
      this.#sweep([...large.keys()]);
      throw error;
    }
  }

  async delete(id: string): Promise<void> {
    await this.#change({ type: "delete", id });
  }

  release(id: string): void {
    this.#leases.delete(id);
  }

  async #writeLarge(contents: ReadonlyMap<string, Uint8Array>): Promise<void> {
    // Before anything is written; the database counts exactly.
    const bytes = contents.values().reduce((sum, { length }) => sum + length, 0);
    checkShare(this.#shares, bytes, bytes);
    try {
      await this.#files.write(contents);
    } catch (error) {
      throw unavailable(error);
    }
  }

  /** Deletes files that nothing refers to. One that cannot be deleted is found again at the next start. */
  #sweep(files: readonly string[]): void {
    for (const file of files) {
      const deleting = this.#files
        .delete(file)
        .catch(() => {})
        .finally(() => this.#deleting.delete(deleting));
      this.#deleting.add(deleting);
    }
  }

  #change(what: SessionChange): Promise<Dropped> {
    return new Promise((resolve, reject) => {
      this.#changes.push({ what, resolve, reject });
      this.#ask();
    });
  }

  #query(what: SessionQuery): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#queries.push({ what, resolve, reject });
      this.#ask();
    });
  }

  #ask(): void {
    if (this.#ended !== null) this.#refuse(this.#ended);
    else if (!this.#isWaiting) this.#send();
  }

  /** Sends all that has been asked meanwhile. */
  #send(): void {
    this.#isWaiting = true;
    const [changes, queries] = [this.#changes, this.#queries];
    this.#thread.ref();
    this.#thread.postMessage({
      changes: changes.map(({ what }) => what),
      queries: queries.map(({ what }) => what),
    } satisfies Batch);
    this.#asked = { changes, queries };
    this.#changes = [];
    this.#queries = [];
  }

  #answer({ changes, queries }: Answers): void {
    const asked = this.#asked;
    this.#asked = NOTHING;
    this.#isWaiting = false;
    this.#thread.unref();
    // The next batch first: the thread need not wait for what is done with these answers.
    if (this.#changes.length > 0 || this.#queries.length > 0) this.#send();
    else this.#onIdle();
    for (const [index, { what, resolve, reject }] of asked.changes.entries()) {
      const outcome = changes[index] as Outcome<Dropped>;
      if ("error" in outcome) {
        reject(unavailable(outcome.error));
        continue;
      }
      this.#remember(what);
      this.#sweep(outcome.value.files);
      resolve(outcome.value);
    }
    for (const [index, { what, resolve, reject }] of asked.queries.entries()) {
      const outcome = queries[index] as Outcome<unknown>;
      if ("error" in outcome) {
        reject(unavailable(outcome.error));
        continue;
      }
      if (what.type === "get" && outcome.value) this.#know(outcome.value as SessionRecord);
      resolve(outcome.value);
    }
  }

  #remember(change: SessionChange): void {
    if (change.type === "move") this.#records.clear();
    else if (change.type === "delete") this.#records.delete(change.id);
    else this.#know(change.record);
  }

  #know(record: SessionRecord): void {
    this.#records.delete(record.id);
    this.#records.set(record.id, record);
    if (this.#records.size <= MAX_KNOWN_RECORDS) return;
    const [oldest] = this.#records.keys();
    if (oldest !== undefined) this.#records.delete(oldest);
  }

  #end(error: Error): void {
    this.#ended = unavailable({ code: "ENDED", message: error.message });
    this.#isWaiting = false;
    this.#records.clear();
    const { changes, queries } = this.#asked;
    this.#changes.unshift(...changes);
    this.#queries.unshift(...queries);
    this.#refuse(this.#ended);
    this.#onIdle();
  }

  #refuse(error: Error): void {
    for (const { reject } of [...this.#changes, ...this.#queries]) reject(error);
    this.#changes = [];
    this.#queries = [];
  }
}

class DiskLease implements SessionLease {
  record: SessionRecord;
  // No other process can acquire it while this one lives.
  readonly lost = new AbortController().signal;
  readonly #store: DiskSessions;

  constructor(store: DiskSessions, record: SessionRecord) {
    this.#store = store;
    this.record = record;
  }

  async commit(record: SessionRecord, snapshot?: NewSnapshot): Promise<void> {
    await this.#store.commit(record, snapshot);
    this.record = record;
  }

  async delete(): Promise<void> {
    await this.#store.delete(this.record.id);
    this.#store.release(this.record.id);
  }

  async release(): Promise<void> {
    this.#store.release(this.record.id);
  }
}

/** What a client is told of an error of the disk's. */
function unavailable(cause: unknown): Error {
  if (cause instanceof ClientError) return cause;
  const { client } = cause as Extract<PlainError, { client: unknown }>;
  if (client) return ClientError.of(client);
  const known = storageError(cause);
  if (known) return known;
  const { code, message } = cause as Extract<PlainError, { message: string }>;
  if (code === undefined) return cause instanceof Error ? cause : new Error(message);
  return new ClientError("store_unavailable", "The session store cannot be used at the moment.", {
    cause,
  });
}
