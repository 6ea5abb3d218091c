import { randomUUID } from "node:crypto";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import { HttpError } from "../../http/http-error.ts";
import type { Asked } from "../../http/routes.ts";
import { ClientError } from "../../shared/errors.ts";
import { FairTurns } from "../../shared/fair-turns.ts";
import type { FileEntry } from "../../wire/messages.ts";
import { type MessageStream, toEnvelope } from "./connect.ts";
import { deadlineOf } from "./deadline.ts";
import { toOwn } from "./paths.ts";

const MAX_OF_PRINCIPAL = 64;
/** A watcher that nothing asks for its events ends after so long. */
const IDLE_MS = 10 * 60 * 1000;
/** How often what is stored is looked at. */
const LOOK_MS = 200;
/** So many events are written before others have their turn. */
const EVENTS_OF_A_TURN = 1000;

interface FileEvent {
  readonly name: string;
  readonly type: "EVENT_TYPE_CREATE" | "EVENT_TYPE_WRITE" | "EVENT_TYPE_REMOVE";
}

interface Watched {
  readonly path: string;
  readonly recursive: boolean;
}

type Entries = ReadonlyMap<string, FileEntry>;

/** The files of one sandbox, for all that watch it: they are listed where its stored state is another one, and each folder is looked up once. */
export class SandboxView {
  readonly #versionOf: () => Promise<string>;
  readonly #list: () => Promise<Entries>;
  #version: string | null = null;
  #entries: Promise<Entries> | null = null;
  readonly #folders = new Map<string, { readonly of: Entries; readonly seen: Entries }>();
  readonly #events = new WeakMap<Entries, { readonly now: Entries; readonly events: readonly FileEvent[] }>();
  readonly #envelopes = new WeakMap<readonly FileEvent[], Promise<Buffer>>();

  /** @param versionOf of its files: another one after each change. */
  constructor(versionOf: () => Promise<string>, list: () => Promise<Entries>) {
    this.#versionOf = versionOf;
    this.#list = list;
  }

  /** Everything that is there; the same object while nothing has changed. */
  async entries(): Promise<Entries> {
    const version = await this.#versionOf();
    if (this.#entries === null || version !== this.#version) {
      this.#version = version;
      const listed = this.#list();
      this.#entries = listed;
      listed.catch(() => {
        if (this.#entries === listed) this.#entries = null;
      });
    }
    return await this.#entries;
  }

  /** What is in a folder, by its names there. */
  seen(entries: Entries, folder: string, recursive: boolean): Entries {
    const key = `${recursive} ${folder}`;
    const known = this.#folders.get(key);
    if (known?.of === entries) return known.seen;
    const base = folder === "/" ? "/" : `${folder}/`;
    const seen = new Map<string, FileEntry>();
    for (const entry of entries.values()) {
      const name = entry.path.slice(base.length);
      if (entry.path.startsWith(base) && name !== "" && (recursive || !name.includes("/"))) seen.set(name, entry);
    }
    if (this.#folders.size >= MAX_OF_PRINCIPAL) this.#folders.clear();
    this.#folders.set(key, { of: entries, seen });
    return seen;
  }

  /** What has changed from one look at a folder to another. */
  events(before: Entries, now: Entries): readonly FileEvent[] {
    if (before === now) return [];
    const known = this.#events.get(before);
    if (known?.now === now) return known.events;
    const events = eventsOf(before, now);
    this.#events.set(before, { now, events });
    return events;
  }

  /** Events as streams send them: the same bytes for all that watch one folder. */
  async envelopes(events: readonly FileEvent[]): Promise<Buffer> {
    const envelopes = this.#envelopes.get(events) ?? toEnvelopes(events);
    this.#envelopes.set(events, envelopes);
    return await envelopes;
  }
}

async function toEnvelopes(events: readonly FileEvent[]): Promise<Buffer> {
  const written: Buffer[] = [];
  for (const filesystem of events) {
    written.push(toEnvelope({ filesystem }));
    if (written.length % EVENTS_OF_A_TURN === 0) await nextTurn();
  }
  return Buffer.concat(written);
}

function eventsOf(before: Entries, now: Entries): readonly FileEvent[] {
  const events: FileEvent[] = [];
  for (const [name, entry] of now) {
    const then = before.get(name);
    if (then === undefined) events.push({ name, type: "EVENT_TYPE_CREATE" });
    const isWritten = then === undefined || then.mtimeMs !== entry.mtimeMs || then.size !== entry.size;
    if (isWritten && entry.kind === "file") events.push({ name, type: "EVENT_TYPE_WRITE" });
  }
  for (const name of before.keys()) if (!now.has(name)) events.push({ name, type: "EVENT_TYPE_REMOVE" });
  return events;
}

/** What has changed in a folder since it was last looked at: files change when an execution, or a request, is through. */
export class FolderWatch {
  readonly #view: SandboxView;
  readonly #folder: string;
  readonly #recursive: boolean;
  #before: Entries = new Map();

  constructor(view: SandboxView, { path, recursive }: Watched) {
    this.#view = view;
    this.#folder = toOwn(path);
    this.#recursive = recursive;
  }

  /** @throws {ClientError} 404, 400 for a file. */
  async begin(): Promise<void> {
    const entries = await this.#view.entries();
    const folder = entries.get(this.#folder);
    if (!folder) throw new ClientError("not_found", `path ${this.#folder} does not exist`);
    if (folder.kind === "file") throw new ClientError("invalid_path", `path ${this.#folder} is not a directory`);
    this.#before = this.#view.seen(entries, this.#folder, this.#recursive);
  }

  /** {@link events}, as a stream sends them. */
  async envelopes(): Promise<Buffer> {
    return await this.#view.envelopes(await this.events());
  }

  async events(): Promise<readonly FileEvent[]> {
    const now = this.#view.seen(await this.#view.entries(), this.#folder, this.#recursive);
    const events = this.#view.events(this.#before, now);
    this.#before = now;
    return events;
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
  /** One look at a time: many folders that change at once delay no other request. */
  readonly #turns = new FairTurns(1);
  /** By sandbox; each goes with the last that watches by it. */
  readonly #views = new Map<string, WeakRef<SandboxView>>();

  /** @returns its id. @throws {ClientError} 404, 429. */
  async open(principal: string, sandbox: string, view: SandboxView, watched: Watched): Promise<string> {
    this.#check(principal);
    const watch = new FolderWatch(view, watched);
    await this.inTurn(principal, async () => await watch.begin());
    this.#check(principal);
    const id = randomUUID();
    this.#watchers.set(id, { principal, sandbox, watch, idle: this.#endLater(id) });
    return id;
  }

  /** @throws {ClientError} 404 */
  async events(principal: string, sandbox: string, id: string): Promise<readonly FileEvent[]> {
    const watcher = this.#get(principal, sandbox, id);
    clearTimeout(watcher.idle);
    watcher.idle = this.#endLater(id);
    return await this.inTurn(principal, async () => await watcher.watch.events());
  }

  /** @throws {ClientError} 404 */
  close(principal: string, sandbox: string, id: string): void {
    clearTimeout(this.#get(principal, sandbox, id).idle);
    this.#watchers.delete(id);
  }

  /** The one view of a sandbox. @param make makes it where there is none. */
  view(principal: string, sandbox: string, make: () => SandboxView): SandboxView {
    const key = `${principal} ${sandbox}`;
    const known = this.#views.get(key)?.deref();
    if (known) return known;
    for (const [other, view] of this.#views) if (view.deref() === undefined) this.#views.delete(other);
    const made = make();
    this.#views.set(key, new WeakRef(made));
    return made;
  }

  /** Has a look that others' requests, and other principals' looks, come between. */
  async inTurn<T>(principal: string, look: () => Promise<T>): Promise<T> {
    return await this.#turns.run(principal, async () => {
      await nextTurn();
      return await look();
    });
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
  { principal, view, ...watched }: Watched & { readonly principal: string; readonly view: SandboxView },
  stream: MessageStream,
  { request, signal }: Pick<Asked<unknown, unknown, unknown>, "request" | "signal">,
): Promise<void> {
  using _ = watchers.stream(principal);
  const watch = new FolderWatch(view, watched);
  await watchers.inTurn(principal, async () => await watch.begin());
  stream.open({ keepalive: {} });
  stream.send({ start: {} });
  const deadline = deadlineOf(request);
  while (!signal.aborted) {
    if (performance.now() > deadline) throw new HttpError(504, "bad_request", "the time of the watch is over");
    await sleep(LOOK_MS, undefined, { signal }).catch(() => {});
    if (signal.aborted || stream.isOver) return;
    const envelopes = await watchers.inTurn(principal, async () => await watch.envelopes());
    if (envelopes.length > 0) stream.write(envelopes);
  }
}
