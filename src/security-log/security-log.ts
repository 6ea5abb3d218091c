// Over 400 lines: one state, of a file that is written, synced, and written again after trouble.
import fs from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { FolderLock } from "../shared/folder-lock.ts";
import { SerialQueue } from "../shared/serial-queue.ts";
import { StorageStartupError } from "../shared/storage-startup-error.ts";
import { type RequestEvent, type SecurityEvent, serializeLine } from "./event.ts";
import { FoldedEvents } from "./folded-events.ts";
import {
  archiveName,
  CURRENT_FILE,
  EMPTY_HEAD,
  type Head,
  hashLine,
  listLogFiles,
  syncFolder,
  writeHead,
} from "./log-files.ts";
import { finding, recoverSecurityLog } from "./recovery.ts";
import { filesToSeal, previousOf, sealOf } from "./seal.ts";
import { reasonOf } from "./trouble.ts";

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

/** Lines that are written at a time, bytes: a line may hold 14 MB of code. */
const MAX_WRITE_BYTES = 4 * 2 ** 20;

/** Lines in a minute of what a principal can cause at any rate; the rest of them is counted. */
const BURST = 100;
/** Addresses and principals of whom repeated events are counted apart. */
const MAX_FOLDED_GROUPS = 1000;

/** What the log says for an event that waits, or is not taken. */
const NOT_WRITTEN = Promise.resolve(false);

interface TimedEvent {
  readonly event: SecurityEvent;
  /** When it happened; it may be written later. */
  readonly timestamp: string;
}

const fdatasync = promisify(fs.fdatasync);

/**
 * The security log: JSON lines, each with the hash of the line before, in `security.log`.
 *
 * Group commit: the events of one turn of the event loop are one write, and none of their promises is settled before it, so what
 * awaits `append` before it replies has its line in the file: it survives the death of the server. It is on the disk,
 * and the head file vouches for it, at most `syncEveryMs` later, so a power cut may lose that much. Writing is synchronous on
 * purpose: it goes to the page cache in some 10 µs, where a trip through the thread pool costs more than the lines.
 *
 * Trouble with folder or disk never throws: `healthy` turns false, events wait in memory, and writing is tried again.
 */
export class SecurityLog {
  readonly #options: Required<Omit<SecurityLogOptions, "onHealth">> & Pick<SecurityLogOptions, "onHealth">;
  #fd: number | null = null;
  /** The end of the log as written; undefined until the log was first opened. */
  #head: Head | undefined;
  readonly #backlog: TimedEvent[] = [];
  #lostEvents = 0;
  /** Events of this turn; null: there are none. */
  #turn: { readonly written: PromiseWithResolvers<boolean>; readonly immediate: NodeJS.Immediate } | null = null;
  /** Bytes of a write that has not succeeded, of which any part may be in the file. */
  #unsettledBytes = 0;
  #reason: string | null = null;
  #retryTimer: NodeJS.Timeout | undefined;
  #syncTimer: NodeJS.Timeout | undefined;
  readonly #syncing = new SerialQueue();
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
      write: (event) => void this.#append(event),
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
   * Writes one event, with the others of this turn.
   *
   * @returns resolves when its line is in the file: true; or waits for the trouble that `reason` names to pass: false. Never rejects.
   */
  append(event: RequestEvent): Promise<boolean> {
    return this.#append(event);
  }

  #append(event: SecurityEvent): Promise<boolean> {
    if (this.#closed || this.#options.dir === "") return NOT_WRITTEN;
    if (this.#backlog.length >= MAX_BACKLOG_EVENTS) this.#lostEvents++;
    else this.#backlog.push(this.#now(event));
    // After a failure the timer tries again: a full disk must not cost every turn an attempt.
    if (this.#retryTimer !== undefined) return NOT_WRITTEN;
    this.#turn ??= { written: Promise.withResolvers(), immediate: setImmediate(() => this.#drain()) };
    return this.#turn.written.promise;
  }

  /** What `append` has returned for the events of this turn: what replies waits for it. Null: nothing has to be waited for. */
  get writing(): Promise<boolean> | null {
    return this.#turn?.written.promise ?? null;
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

  /**
   * Writes what user code has caused, or a request that costs its caller nothing: the first {@link BURST} of a principal's minute as they come, as
   * {@link appendFolded} does.
   */
  appendOften(event: SecurityEvent): void {
    this.appendFolded(event, event.principal ?? "", BURST);
  }

  /** Resolves when every line so far is on the disk and the head file vouches for it. Never rejects. */
  sync(): Promise<void> {
    if (this.#turn !== null) this.#drain();
    clearTimeout(this.#syncTimer);
    this.#syncTimer = undefined;
    return this.#syncing.run(() => this.#sync());
  }

  /** Writes what waits, syncs and closes. From then on `append` does nothing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#folded.flush();
    clearTimeout(this.#retryTimer);
    if (!this.healthy || this.#turn !== null) this.#drain();
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

  /** Writes all that waits, and tells those who wait for this turn's lines. */
  #drain(): void {
    const turn = this.#turn;
    this.#turn = null;
    const isWritten = this.#tryWriting();
    if (turn === null) return;
    clearImmediate(turn.immediate);
    turn.written.resolve(isWritten);
  }

  #tryWriting(): boolean {
    try {
      if (this.#options.dir === "") throw new Error("LOG_DIR is empty");
      if (this.#fd === null) this.#open();
      while (this.#backlog.length > 0) this.#backlog.splice(0, this.#write(this.#backlog));
      if (this.#lostEvents > 0) {
        this.#write([this.#now(finding("log_gap", { lost: this.#lostEvents }))]);
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
    this.#fd = fs.openSync(this.#path(CURRENT_FILE), "a", 0o600);
    if (this.#unsettledBytes > 0) this.#takeBack(this.#fd);
    // What this process wrote it knows better than the head file, which lags, and which may have been tampered with.
    const { head, findings } = recoverSecurityLog(dir, this.#head && { ...this.#head, open: false });
    this.#head = head;
    if (findings.length > 0) this.#write(findings.map((event) => this.#now(event)));
    fs.fdatasyncSync(this.#fd);
    writeHead(dir, this.#head);
    syncFolder(dir);
  }

  /**
   * Writes the first of these events in one write, as many as fit into the file and into {@link MAX_WRITE_BYTES}: at least one.
   * A write that fails leaves none of its lines, and the head as it was.
   *
   * @returns how many.
   */
  #write(events: readonly TimedEvent[]): number {
    const head = this.#head as Head;
    let { seq, hash, offset, size } = head;
    let text = "";
    let written = 0;
    for (const { event, timestamp } of events) {
      const line = serializeLine(event, timestamp, seq + 1, hash);
      const bytes = Buffer.byteLength(line) + 1;
      if (size > 0 && size + bytes > this.#options.maxBytes) {
        if (written > 0) break;
        this.#rotate();
        return this.#write(events);
      }
      if (written > 0 && size + bytes - head.size > MAX_WRITE_BYTES) break;
      text += `${line}\n`;
      seq++;
      hash = hashLine(line);
      offset = size;
      size += bytes;
      written++;
    }
    this.#unsettledBytes = size - head.size;
    fs.writeFileSync(this.#fd as number, text);
    this.#unsettledBytes = 0;
    this.#head = { first: head.first, seq, hash, offset, size, open: true };
    this.#syncTimer ??= setTimeout(() => this.sync(), this.#options.syncEveryMs).unref();
    return written;
  }

  #now(event: SecurityEvent): TimedEvent {
    return { event, timestamp: new Date(this.#options.now()).toISOString() };
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
      if (seal === null) void this.#append(finding("log_damaged", { reason: `${name} held no line of the log` }));
      else if (!(await this.#append(finding("log_sealed", { ...seal })))) return;
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
    try {
      if (this.#fd !== null) this.#takeBack(this.#fd);
    } catch {
      // Before anything is written again.
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

  /**
   * Takes back what a failed write has left behind the last line that counts: a part of a line, or whole lines whose events are
   * written again. What others have done to the file stays, and shows.
   *
   * @throws what the disk throws.
   */
  #takeBack(fd: number): void {
    const { size } = this.#head ?? EMPTY_HEAD;
    const left = fs.fstatSync(fd).size - size;
    if (left > 0 && left <= this.#unsettledBytes) fs.ftruncateSync(fd, size);
    this.#unsettledBytes = 0;
  }

  #release(): void {
    const fd = this.#fd;
    this.#fd = null;
    // Not before a sync that is under way has done with it: the number may be another file's by then.
    if (fd !== null) void this.#syncing.idle().then(() => fs.close(fd, () => {}));
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
