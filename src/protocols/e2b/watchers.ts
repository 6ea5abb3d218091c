import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { HttpError } from "../../http/http-error.ts";
import type { Asked } from "../../http/routes.ts";
import { ClientError } from "../../shared/errors.ts";
import type { FileEntry } from "../../wire/messages.ts";
import type { MessageStream } from "./connect.ts";
import { deadlineOf } from "./deadline.ts";
import type { SandboxFiles } from "./filesystem.ts";
import { toOwn } from "./paths.ts";

const MAX_OF_PRINCIPAL = 64;
/** A watcher that nothing asks for its events ends after so long. */
const IDLE_MS = 10 * 60 * 1000;
/** How often what is stored is looked at. */
const LOOK_MS = 200;

interface FileEvent {
  readonly name: string;
  readonly type: "EVENT_TYPE_CREATE" | "EVENT_TYPE_WRITE" | "EVENT_TYPE_REMOVE";
}

interface Watched {
  readonly path: string;
  readonly recursive: boolean;
}

/** What has changed in a folder since it was last looked at: files change when an execution, or a request, is through. */
class FolderWatch {
  readonly #files: SandboxFiles;
  readonly #folder: string;
  readonly #recursive: boolean;
  #before: ReadonlyMap<string, FileEntry> = new Map();

  constructor(files: SandboxFiles, { path, recursive }: Watched) {
    this.#files = files;
    this.#folder = toOwn(path);
    this.#recursive = recursive;
  }

  /** @throws {ClientError} 404, 400 for a file. */
  async begin(): Promise<void> {
    const entries = await this.#files.entries();
    const folder = entries.get(this.#folder);
    if (!folder) throw new ClientError("not_found", `path ${this.#folder} does not exist`);
    if (folder.kind === "file") throw new ClientError("invalid_path", `path ${this.#folder} is not a directory`);
    this.#before = this.#seen(entries);
  }

  async events(): Promise<FileEvent[]> {
    const now = this.#seen(await this.#files.entries());
    const events: FileEvent[] = [];
    for (const [name, entry] of now) {
      const before = this.#before.get(name);
      if (before === undefined) events.push({ name, type: "EVENT_TYPE_CREATE" });
      const isWritten = before === undefined || before.mtimeMs !== entry.mtimeMs || before.size !== entry.size;
      if (isWritten && entry.kind === "file") events.push({ name, type: "EVENT_TYPE_WRITE" });
    }
    for (const name of this.#before.keys()) if (!now.has(name)) events.push({ name, type: "EVENT_TYPE_REMOVE" });
    this.#before = now;
    return events;
  }

  #seen(entries: ReadonlyMap<string, FileEntry>): ReadonlyMap<string, FileEntry> {
    const base = this.#folder === "/" ? "/" : `${this.#folder}/`;
    return new Map(
      Array.from(entries.values(), (entry) => [entry.path.slice(base.length), entry] as const).filter(
        ([name, { path }]) => path.startsWith(base) && name !== "" && (this.#recursive || !name.includes("/")),
      ),
    );
  }
}

interface Watcher {
  readonly principal: string;
  readonly sandbox: string;
  readonly watch: FolderWatch;
  idle: NodeJS.Timeout;
}

/** Watchers that clients ask for their events, and how many of these and of streams a principal has. */
export class Watchers {
  readonly #watchers = new Map<string, Watcher>();
  readonly #streams = new Map<string, number>();

  /** @returns its id. @throws {ClientError} 404, 429. */
  async open(principal: string, sandbox: string, files: SandboxFiles, watched: Watched): Promise<string> {
    this.#check(principal);
    const watch = new FolderWatch(files, watched);
    await watch.begin();
    this.#check(principal);
    const id = randomUUID();
    this.#watchers.set(id, { principal, sandbox, watch, idle: this.#endLater(id) });
    return id;
  }

  /** @throws {ClientError} 404 */
  async events(principal: string, sandbox: string, id: string): Promise<FileEvent[]> {
    const watcher = this.#get(principal, sandbox, id);
    clearTimeout(watcher.idle);
    watcher.idle = this.#endLater(id);
    return await watcher.watch.events();
  }

  /** @throws {ClientError} 404 */
  close(principal: string, sandbox: string, id: string): void {
    clearTimeout(this.#get(principal, sandbox, id).idle);
    this.#watchers.delete(id);
  }

  /** Counts a stream until it is disposed of. @throws {ClientError} 429 */
  stream(principal: string): Disposable {
    this.#check(principal);
    this.#streams.set(principal, (this.#streams.get(principal) ?? 0) + 1);
    return {
      [Symbol.dispose]: () => {
        const left = (this.#streams.get(principal) ?? 1) - 1;
        if (left > 0) this.#streams.set(principal, left);
        else this.#streams.delete(principal);
      },
    };
  }

  closeAll(): void {
    for (const { idle } of this.#watchers.values()) clearTimeout(idle);
    this.#watchers.clear();
  }

  #get(principal: string, sandbox: string, id: string): Watcher {
    const watcher = this.#watchers.get(id);
    if (watcher?.principal !== principal || watcher.sandbox !== sandbox)
      throw new ClientError("not_found", `watcher with id ${id.slice(0, 64)} not found`);
    return watcher;
  }

  #check(principal: string): void {
    const own = [...this.#watchers.values()].filter((watcher) => watcher.principal === principal).length;
    if (own + (this.#streams.get(principal) ?? 0) >= MAX_OF_PRINCIPAL)
      throw new HttpError(429, "bad_request", `At most ${MAX_OF_PRINCIPAL} folders may be watched at a time`);
  }

  #endLater(id: string): NodeJS.Timeout {
    return setTimeout(() => this.#watchers.delete(id), IDLE_MS).unref();
  }
}

/** Sends what changes in a folder, until the client goes or its time is over. */
export async function watchDir(
  watchers: Watchers,
  {
    principal,
    files,
    check,
    ...watched
  }: Watched & { readonly principal: string; readonly files: SandboxFiles; readonly check: () => Promise<unknown> },
  stream: MessageStream,
  { request, signal }: Pick<Asked<unknown, unknown, unknown>, "request" | "signal">,
): Promise<void> {
  using _ = watchers.stream(principal);
  const watch = new FolderWatch(files, watched);
  await watch.begin();
  stream.open({ keepalive: {} });
  stream.send({ start: {} });
  const deadline = deadlineOf(request);
  while (!signal.aborted) {
    if (performance.now() > deadline) throw new HttpError(504, "bad_request", "the time of the watch is over");
    await sleep(LOOK_MS, undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
    await check();
    for (const filesystem of await watch.events()) stream.send({ filesystem });
  }
}
