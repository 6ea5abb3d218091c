import fs from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { FolderLock } from "../shared/folder-lock.ts";
import { StorageStartupError } from "../shared/storage-startup-error.ts";
import type { StorageTrouble } from "../shared/storage-trouble.ts";
import { type SecurityEvent, serializeLine } from "./event.ts";
import { FoldedEvents } from "./folded-events.ts";
import { archiveName, CURRENT_FILE, type Head, hashLine, listLogFiles, writeHead } from "./log-files.ts";
import { finding, recoverSecurityLog } from "./recovery.ts";
import { filesToSeal, previousOf, sealOf } from "./seal.ts";

export interface SecurityLogOptions {
  /** Folder of `security.log`, made if need be; empty: no log, and `healthy` is false. */
  readonly dir: string;
  /** Begin a new file rather than let one grow over this. */
  readonly maxBytes: number;
  /** Delete the oldest files, sealed, rather than let all of them together grow over this; default: keep all. */
  readonly maxTotalBytes?: number;
  /** Most ms between writing a line and having it on the disk; default 100. */
  readonly syncEveryMs?: number;
  /** ms between attempts to write again after a failure; default 1000. */
  readonly retryEveryMs?: number;
  /** How long repeated events are counted before a line says so, ms; default 60,000. */
  readonly foldMs?: number;
  /** Called when `healthy` changes, so that the server log says so. */
  readonly onHealth?: (healthy: boolean, reason: string | null) => void;
  /** ms since 1970; default `Date.now`. */
  readonly now?: () => number;
}

/** Events kept in memory while they cannot be written; what comes on top is counted in a `log_gap` event. */
const MAX_BACKLOG_EVENTS = 10_000;

/** Addresses and principals of whom repeated events are counted apart. */
const MAX_FOLDED_GROUPS = 1000;

const fdatasync = promisify(fs.fdatasync);

/**
 * The security log: JSON lines, each with the hash of the line before, in `security.log`.
 *
 * A line is written to the file before `append` returns, so it survives the death of the server; it is on the disk,
 * and the head file vouches for it, at most `syncEveryMs` later, so a power cut may lose that much. Writing is synchronous on
 * purpose: it goes to the page cache in some 10 µs, where a trip through the thread pool costs more than the line.
 *
 * Trouble with folder or disk never throws: `healthy` turns false, events wait in memory, and writing is tried again.
 */
export class SecurityLog {
  readonly #options: Required<Omit<SecurityLogOptions, "onHealth">> & Pick<SecurityLogOptions, "onHealth">;
  #fd: number | null = null;
  /** The end of the log as written; undefined until the log was first opened. */
  #head: Head | undefined;
  #backlog: { readonly event: SecurityEvent; readonly timestamp: string }[] = [];
  #lostEvents = 0;
  #reason: string | null = null;
  #retryTimer: NodeJS.Timeout | undefined;
  #syncTimer: NodeJS.Timeout | undefined;
  #syncing: Promise<void> = Promise.resolve();
  #sealing: Promise<void> | null = null;
  readonly #folded: FoldedEvents;
  #lock: FolderLock | undefined;
  #refused: StorageStartupError | null = null;
  #closed = false;

  constructor(options: SecurityLogOptions) {
    this.#options = {
      maxTotalBytes: Number.POSITIVE_INFINITY,
      syncEveryMs: 100,
      retryEveryMs: 1000,
      now: Date.now,
      foldMs: 60_000,
      ...options,
    };
    this.#folded = new FoldedEvents({
      write: (event) => this.append(event),
      windowMs: this.#options.foldMs,
      maxGroups: MAX_FOLDED_GROUPS,
      now: this.#options.now,
    });
    this.#drain();
    this.#sealOldest();
  }

  /** False while events cannot be written; by AUDIT_REQUIRED the service then refuses to run code. */
  get healthy(): boolean {
    return this.#reason === null;
  }

  /** Why not, without paths: `ENOSPC (write)`. Null while healthy. */
  get reason(): string | null {
    return this.#reason;
  }

  /** Why its folder cannot be made or locked; null: it could, or something else is wrong. */
  get refused(): StorageStartupError | null {
    return this.#refused;
  }

  /** Absolute path of the file that is written to; null without a folder. */
  get file(): string | null {
    return this.#options.dir === "" ? null : this.#path(CURRENT_FILE);
  }

  /**
   * Writes one event.
   *
   * @returns true if its line is in the file now; false if it waits for the trouble that `reason` names to pass.
   */
  append(event: SecurityEvent): boolean {
    if (this.#closed || this.#options.dir === "") return false;
    if (this.#backlog.length >= MAX_BACKLOG_EVENTS) this.#lostEvents++;
    else this.#backlog.push({ event, timestamp: new Date(this.#options.now()).toISOString() });
    // After a failure the timer tries again: a full disk must not cost every request an attempt.
    return this.#retryTimer === undefined && this.#drain();
  }

  /**
   * Writes an event of which a client can cause any number at any rate: the first `burst` of a minute as they come, then one line with
   * `details.count` for the rest of that minute.
   *
   * @param key whose events are counted together: an address, a principal. Nothing a client could vary at will.
   */
  appendFolded(event: SecurityEvent, key: string, burst = 1): void {
    if (this.#closed || this.#options.dir === "") return;
    this.#folded.add(event, key, burst);
  }

  /** Resolves when every line written so far is on the disk and the head file vouches for it. Never rejects. */
  sync(): Promise<void> {
    clearTimeout(this.#syncTimer);
    this.#syncTimer = undefined;
    this.#syncing = this.#syncing.then(() => this.#sync());
    return this.#syncing;
  }

  /** Writes what waits, syncs and closes. From then on `append` does nothing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#folded.flush();
    clearTimeout(this.#retryTimer);
    if (!this.healthy) this.#drain();
    clearTimeout(this.#retryTimer);
    this.#closed = true;
    await this.#sealing;
    await this.sync();
    try {
      if (this.#fd !== null && this.#head !== undefined) writeHead(this.#options.dir, { ...this.#head, open: false });
    } catch (error) {
      this.#fail(error);
    }
    this.#release();
    this.#lock?.[Symbol.dispose]();
  }

  #drain(): boolean {
    try {
      if (this.#options.dir === "") throw new Error("LOG_DIR is empty");
      if (this.#fd === null) this.#open();
      for (let next = this.#backlog[0]; next !== undefined; next = this.#backlog[0]) {
        this.#write(next.event, next.timestamp);
        this.#backlog.shift();
      }
      if (this.#lostEvents > 0) {
        this.#write(finding("log_gap", { lost: this.#lostEvents }));
        this.#lostEvents = 0;
      }
    } catch (error) {
      this.#fail(error);
      return false;
    }
    this.#refused = null;
    this.#setReason(null);
    return true;
  }

  #open(): void {
    const { dir } = this.#options;
    // Made and taken anew each time, since the folder may have been removed.
    this.#lock?.[Symbol.dispose]();
    this.#lock = undefined;
    this.#lock = new FolderLock(dir, { name: "security.log.lock", setting: "LOG_DIR" });
    // What this process wrote it knows better than the head file, which lags, and which may have been tampered with.
    const { head, findings } = recoverSecurityLog(dir, this.#head && { ...this.#head, open: false });
    this.#fd = fs.openSync(this.#path(CURRENT_FILE), "a", 0o600);
    this.#head = head;
    for (const event of findings) this.#write(event);
    fs.fdatasyncSync(this.#fd);
    writeHead(dir, this.#head);
    syncFolder(dir);
  }

  #write(event: SecurityEvent, timestamp = new Date(this.#options.now()).toISOString()): void {
    const head = this.#head as Head;
    const line = Buffer.from(`${serializeLine(event, timestamp, head.seq + 1, head.hash)}\n`);
    if (head.size > 0 && head.size + line.length > this.#options.maxBytes) this.#rotate();
    const { first, size } = this.#head as Head;
    fs.writeFileSync(this.#fd as number, line);
    const hash = hashLine(line.subarray(0, -1));
    this.#head = { first, seq: head.seq + 1, hash, offset: size, size: size + line.length, open: true };
    this.#syncTimer ??= setTimeout(() => this.sync(), this.#options.syncEveryMs).unref();
  }

  /** The order matters: the head speaks of the old file until that has its final name, then of the new one. */
  #rotate(): void {
    const { dir } = this.#options;
    const head = this.#head as Head;
    fs.fdatasyncSync(this.#fd as number);
    writeHead(dir, head);
    const archive = this.#path(archiveName(head.first));
    if (fs.existsSync(archive)) throw new Error("a rotated file of this number exists");
    fs.renameSync(this.#path(CURRENT_FILE), archive);
    this.#release();
    this.#fd = fs.openSync(this.#path(CURRENT_FILE), "ax", 0o600);
    this.#head = { ...head, first: head.seq + 1, offset: 0, size: 0 };
    writeHead(dir, this.#head);
    syncFolder(dir);
    this.#sealOldest();
  }

  /** Begins to delete what is too much, unless that is under way. */
  #sealOldest(): void {
    const { maxTotalBytes } = this.#options;
    if (!Number.isFinite(maxTotalBytes) || this.#sealing !== null || this.#closed) return;
    this.#sealing = this.#sealFiles()
      // The disk's trouble shows where lines are written, too; the next rotation tries again.
      .catch(() => {})
      .finally(() => {
        this.#sealing = null;
      });
  }

  /**
   * A file is deleted when the line that seals it is on the disk. A crash between the two leaves the file, which is then sealed
   * once more.
   */
  async #sealFiles(): Promise<void> {
    const { dir, maxBytes, maxTotalBytes } = this.#options;
    for (;;) {
      // The file that is written to may become full at any time.
      const [name, following] = filesToSeal(dir, Math.max(0, maxTotalBytes - maxBytes));
      if (name === undefined || this.#closed) return;
      const archives = listLogFiles(dir).map((file) => file.name);
      const after = following ?? archives[archives.indexOf(name) + 1];
      const seal = await sealOf(dir, name, after && (await previousOf(dir, after)));
      if (this.#closed || !this.healthy) return;
      if (seal === null) this.append(finding("log_damaged", { reason: `${name} held no line of the log` }));
      else if (!this.append(finding("log_sealed", { ...seal }))) return;
      await this.sync();
      if (!this.healthy) return;
      await fs.promises.rm(path.join(dir, name), { force: true });
    }
  }

  async #sync(): Promise<void> {
    const fd = this.#fd;
    const head = this.#head;
    if (fd === null || head === undefined) return;
    try {
      await fdatasync(fd);
      if (this.#fd !== fd) return;
      writeHead(this.#options.dir, head);
      if (this.#wasTouched(fd)) {
        this.#release();
        this.#drain();
      }
    } catch (error) {
      // A rotation or a failed write in the meantime has closed the file, and has synced or given up its lines itself.
      if (this.#fd === fd) this.#fail(error);
    }
  }

  /** Whether the file is no longer the one in the folder, or has another length than we gave it. */
  #wasTouched(fd: number): boolean {
    const ours = fs.fstatSync(fd);
    const there = fs.statSync(this.#path(CURRENT_FILE), { throwIfNoEntry: false });
    return there?.ino !== ours.ino || there.dev !== ours.dev || ours.size !== this.#head?.size;
  }

  #fail(error: unknown): void {
    if (this.#fd !== null && this.#head !== undefined) {
      try {
        // Takes back the part of a line that a full disk let through. Where this fails, too, recovery does it.
        if (fs.fstatSync(this.#fd).size > this.#head.size) fs.ftruncateSync(this.#fd, this.#head.size);
      } catch {}
    }
    this.#release();
    this.#refused = error instanceof StorageStartupError ? error : null;
    this.#setReason(reasonOf(error));
    if (this.#closed || this.#options.dir === "") return;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => {
      this.#retryTimer = undefined;
      this.#drain();
    }, this.#options.retryEveryMs).unref();
  }

  #release(): void {
    const fd = this.#fd;
    this.#fd = null;
    // Not before a sync that is under way has done with it: the number may be another file's by then.
    if (fd !== null) void this.#syncing.finally(() => fs.close(fd, () => {}));
  }

  #setReason(reason: string | null): void {
    const changed = (reason === null) !== (this.#reason === null);
    this.#reason = reason;
    if (changed) this.#options.onHealth?.(reason === null, reason);
  }

  #path(name: string): string {
    return path.join(this.#options.dir, name);
  }
}

const LOCK_REASONS: Readonly<Record<StorageTrouble, string>> = {
  busy: "another server writes to this folder",
  full: "its disk is full",
  denied: "the server may not write to its folder",
  damaged: "its lock file is damaged",
  unsupported: "its file system has no working locks",
  failing: "its disk answers with errors",
};

/** Without paths: clients with the right to look see it. */
function reasonOf(error: unknown): string {
  const isNamed = error instanceof StorageStartupError && error.trouble !== null;
  if (isNamed) return LOCK_REASONS[error.trouble];
  const { code, syscall, message } = (
    error instanceof StorageStartupError ? error.cause : error
  ) as NodeJS.ErrnoException;
  return code === undefined ? message : `${code} (${syscall})`;
}

/** Makes names in a folder, not only files' contents, survive a power cut. */
function syncFolder(dir: string): void {
  const fd = fs.openSync(dir, "r");
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}
