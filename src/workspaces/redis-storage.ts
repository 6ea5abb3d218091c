import { createHash, randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Redis } from "ioredis";
import { z } from "zod";
import type { Blob } from "../shared/blob-folder.ts";
import { ClientError } from "../shared/errors.ts";
import { luaScript } from "../shared/lua-script.ts";
import { type RedisConnection, unavailable } from "../shared/redis-connection.ts";
import { SerialQueue } from "../shared/serial-queue.ts";
import type { NewContents, ReceivedBlob, Snapshot, WorkspaceStorage } from "./storage.ts";
import { WorkspaceIndex } from "./workspace-index.ts";

export interface RedisWorkspaceOptions {
  readonly connection: RedisConnection;
  readonly principal: string;
  /** Name of the workspace in Redis; further keys begin with it. */
  readonly key: string;
  /** Contents without a reference never take more than this, bytes: as much as the workspace itself may. */
  readonly maxBytes: number;
  readonly keepGarbageMs?: number;
}

/** One state of the workspace as Redis has it. */
interface Revision {
  /** Names the change that made it; empty: nothing is stored yet. */
  readonly id: string;
  readonly index: WorkspaceIndex;
  /** Contents that the index does not need and an execution somewhere may; they expire by themselves. */
  readonly garbage: readonly Garbage[];
}

type Garbage = z.infer<typeof garbageList>[number];

interface RedisReceivedBlob extends ReceivedBlob {
  readonly incoming: string;
}

// An execution takes five minutes at most; twice that, for those that wait or are started again.
const KEEP_GARBAGE_MS = 10 * 60_000;
/** What was sent and then never named by a change is forgotten after this time. */
const KEEP_INCOMING_MS = 10 * 60_000;
/** One command moves no more than this, bytes, so that no other command waits long behind it. */
const CHUNK_BYTES = 1024 * 1024;
const MAX_PIPELINE_COMMANDS = 500;
/** Contents; what is kept of them is rewritten with each change. */
const MAX_GARBAGE = 10_000;
const MAX_CONFLICT_MS = 10_000;
const LONGEST_PAUSE_MS = 200;

const EMPTY = createHash("sha256").digest("hex");

const CHANGE_WORKSPACE = luaScript(new URL("redis/change.lua", import.meta.url));
/** The same, allowed also where Redis is full: only for changes after which there is less. */
const SHRINK_WORKSPACE = `#!lua flags=allow-oom\n${CHANGE_WORKSPACE}`;

const garbageList = z.array(z.object({ sha256: z.string(), size: z.number(), untilMs: z.number() }));

/**
 * One workspace in Redis:
 *
 *     <key>                     hash: revision, index, garbage, recent (the last changes, so that none is made twice)
 *     <key>:content:<SHA-256>   hash: 0, 1, … are its pieces of 1 MiB
 *     <key>:incoming:<id>       a content that is being sent; expires by itself
 *
 * A change is planned here, on a revision, and made by a script only if the workspace still is at that revision; else it
 * is planned anew. So changes of two servers come one after the other, and none is lost. The index is the only reference
 * to contents: what it lets go expires after `keepGarbageMs`, or at once where that would be more than `maxBytes`.
 */
export class RedisWorkspace implements WorkspaceStorage {
  readonly #options: RedisWorkspaceOptions;
  /** As last seen; asked for anew before each use, which costs little where it has not changed. */
  #known: Revision = { id: "", index: WorkspaceIndex.empty(Date.now()), garbage: [] };
  /** This server's changes do not get into each other's way. */
  readonly #turns = new SerialQueue();
  #closed = false;

  constructor(options: RedisWorkspaceOptions) {
    this.#options = options;
  }

  get entryCount(): number {
    return this.#known.index.entryCount;
  }

  async current(): Promise<WorkspaceIndex> {
    return (await this.#refresh()).index;
  }

  async snapshot(): Promise<Snapshot> {
    const { index } = await this.#refresh();
    return { index, read: (blob) => this.#read(blob), release: async () => {} };
  }

  async receive(
    source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    maxBytes: number,
    tooLarge: () => Error,
  ): Promise<RedisReceivedBlob> {
    this.#assertOpen();
    const incoming = this.#incomingKey();
    const drop = () => this.#forget(incoming);
    const hash = createHash("sha256");
    let size = 0;
    try {
      let piece = 0;
      const checked = async function* () {
        for await (const chunk of source) {
          size += chunk.length;
          if (size > maxBytes) throw tooLarge();
          hash.update(chunk);
          yield chunk;
        }
      };
      for await (const bytes of inPieces(checked())) await this.#send([{ key: incoming, piece: piece++, bytes }]);
    } catch (error) {
      await drop();
      throw error;
    }
    return { sha256: hash.digest("hex"), size, incoming, drop };
  }

  /** @throws {ClientError} 503 `store_unavailable` also where others change the workspace all the time. */
  change(plan: (current: WorkspaceIndex) => WorkspaceIndex, contents: NewContents = {}): Promise<void> {
    return this.#turns.run(async () => {
      const deadline = performance.now() + MAX_CONFLICT_MS;
      const received = contents.received as RedisReceivedBlob | undefined;
      const sent = new Map(received && [[received.sha256, received.incoming]]);
      try {
        for (let pauseMs = 5; ; pauseMs = Math.min(LONGEST_PAUSE_MS, pauseMs * 2)) {
          this.#assertOpen();
          if (await this.#tryChange(plan, contents, sent)) return;
          if (performance.now() > deadline) throw unavailable(new Error("the workspace is changed all the time"));
          await sleep(Math.random() * pauseMs);
        }
      } finally {
        if (received) sent.delete(received.sha256);
        for (const incoming of sent.values()) await this.#forget(incoming);
      }
    });
  }

  /** Waits for the changes that have begun; later ones fail. */
  close(): Promise<void> {
    return this.#turns.run(async () => {
      this.#closed = true;
    });
  }

  /** @param sent contents that Redis has under another name; those that this change has to send are added. */
  async #tryChange(
    plan: (current: WorkspaceIndex) => WorkspaceIndex,
    { bytes }: NewContents,
    sent: Map<string, string>,
  ): Promise<boolean> {
    const before = await this.#refresh();
    const next: Revision = { id: randomUUID(), index: plan(before.index), garbage: [] };
    // Nothing is stored for a file that has nothing in it.
    const added = [...next.index.blobs].filter((sha256) => !before.index.blobs.has(sha256) && sha256 !== EMPTY);
    await this.#sendMissing(added, bytes, sent);
    const { garbage, fresh, dropped } = this.#garbageAfter(before, next.index);
    const shrinks = added.length === 0 && next.index.entryCount <= before.index.entryCount;
    const answer = await this.#options.connection.run(
      shrinks ? SHRINK_WORKSPACE : CHANGE_WORKSPACE,
      [this.#options.key],
      [
        this.#options.connection.deadlineMs(),
        before.id,
        next.id,
        next.index.toJson(this.#options.principal),
        JSON.stringify(garbage),
        JSON.stringify(added.map((sha256) => [sha256, sent.get(sha256) ?? ""])),
        JSON.stringify(fresh),
        this.#options.keepGarbageMs ?? KEEP_GARBAGE_MS,
        JSON.stringify(dropped),
      ],
    );
    switch (answer) {
      case "changed":
        this.#known = { ...next, garbage };
        for (const sha256 of added) sent.delete(sha256);
        return true;
      case "conflict":
        return false;
      case "late":
        return await this.#options.connection.refuseLate();
      default:
        throw unavailable(new Error("a content that had been sent is gone"));
    }
  }

  /** @returns all garbage, oldest first; what of it is new; and what has to go at once for want of room. */
  #garbageAfter(before: Revision, next: WorkspaceIndex): { garbage: Garbage[]; fresh: string[]; dropped: string[] } {
    const nowMs = this.#options.connection.nowMs();
    const untilMs = nowMs + (this.#options.keepGarbageMs ?? KEEP_GARBAGE_MS);
    const fresh = [...before.index.blobs].filter((sha256) => !next.blobs.has(sha256));
    const sizes = sizesOf(before.index);
    const garbage = [
      ...before.garbage.filter((item) => item.untilMs > nowMs && !next.blobs.has(item.sha256)),
      ...fresh.map((sha256) => ({ sha256, size: sizes.get(sha256) ?? 0, untilMs })),
    ];
    let bytes = garbage.reduce((sum, { size }) => sum + size, 0);
    const dropped: string[] = [];
    while (bytes > this.#options.maxBytes || garbage.length > MAX_GARBAGE) {
      const oldest = garbage.shift() as Garbage;
      bytes -= oldest.size;
      dropped.push(oldest.sha256);
    }
    return { garbage, fresh, dropped };
  }

  async #refresh(): Promise<Revision> {
    this.#assertOpen();
    const { connection, key } = this.#options;
    const id = (await connection.attempt((redis) => redis.hget(key, "revision"))) ?? "";
    if (id === this.#known.id) return this.#known;
    const [revision, index, garbage] = await connection.attempt((redis) =>
      redis.hmget(key, "revision", "index", "garbage"),
    );
    if (!revision || !index) {
      // Redis was emptied.
      this.#known = { id: "", index: WorkspaceIndex.empty(Date.now()), garbage: [] };
    } else {
      this.#known = { id: revision, index: parseIndex(index), garbage: garbageList.parse(JSON.parse(garbage ?? "[]")) };
    }
    return this.#known;
  }

  async #read({ sha256, size }: Blob): Promise<Uint8Array> {
    const key = this.#contentKey(sha256);
    const pieces: Buffer[] = [];
    for (let at = 0, piece = 0; at < size; piece++) {
      const bytes = await this.#options.connection.attempt((redis) => redis.hgetBuffer(key, String(piece)));
      if (bytes === null) throw new ClientError("content_gone");
      pieces.push(bytes);
      at += bytes.length;
    }
    const bytes = Buffer.concat(pieces);
    if (bytes.length !== size) throw new Error(`content ${sha256} has ${bytes.length} bytes, not ${size}`);
    return bytes;
  }

  async #sendMissing(
    wanted: readonly string[],
    bytes: ReadonlyMap<string, Uint8Array> = new Map(),
    sent: Map<string, string>,
  ): Promise<void> {
    let batch: Piece[] = [];
    let batchBytes = 0;
    const flush = async () => {
      await this.#send(batch);
      batch = [];
      batchBytes = 0;
    };
    for (const sha256 of wanted) {
      const content = bytes.get(sha256);
      if (content === undefined || content.length === 0 || sent.has(sha256)) continue;
      const key = this.#incomingKey();
      for (let at = 0; at < content.length; at += CHUNK_BYTES) {
        batch.push({ key, piece: at / CHUNK_BYTES, bytes: content.subarray(at, at + CHUNK_BYTES) });
        batchBytes += Math.min(CHUNK_BYTES, content.length - at);
        if (batchBytes >= CHUNK_BYTES || batch.length * 2 >= MAX_PIPELINE_COMMANDS) await flush();
      }
      sent.set(sha256, key);
    }
    await flush();
  }

  async #send(pieces: readonly Piece[]): Promise<void> {
    if (pieces.length === 0) return;
    await this.#options.connection.attempt(async (redis: Redis) => {
      const pipeline = redis.pipeline();
      for (const { key, piece, bytes } of pieces) {
        pipeline.hset(key, String(piece), Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
        pipeline.pexpire(key, KEEP_INCOMING_MS);
      }
      const failed = (await pipeline.exec())?.find(([error]) => error !== null);
      if (failed?.[0]) throw failed[0];
    });
  }

  /** It would expire all the same. */
  async #forget(incoming: string): Promise<void> {
    await this.#options.connection.attempt((redis) => redis.unlink(incoming)).catch(() => {});
  }

  #incomingKey(): string {
    return `${this.#options.key}:incoming:${randomUUID()}`;
  }

  #contentKey(sha256: string): string {
    return `${this.#options.key}:content:${sha256}`;
  }

  #assertOpen(): void {
    if (this.#closed) throw new Error("the workspace store is closed");
  }
}

interface Piece {
  readonly key: string;
  readonly piece: number;
  readonly bytes: Uint8Array;
}

/** Cuts a stream anew, into pieces of {@link CHUNK_BYTES} and a last one that may be shorter. */
async function* inPieces(source: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  let waiting: Uint8Array[] = [];
  let waitingBytes = 0;
  for await (const chunk of source) {
    for (let rest = chunk; rest.length > 0; ) {
      const taken = rest.subarray(0, CHUNK_BYTES - waitingBytes);
      rest = rest.subarray(taken.length);
      waiting.push(taken);
      waitingBytes += taken.length;
      if (waitingBytes < CHUNK_BYTES) continue;
      yield Buffer.concat(waiting);
      waiting = [];
      waitingBytes = 0;
    }
  }
  if (waitingBytes > 0) yield Buffer.concat(waiting);
}

function sizesOf(index: WorkspaceIndex): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const [, entry] of index.entries()) if (entry.kind === "file") sizes.set(entry.sha256, entry.size);
  return sizes;
}

/** @throws {Error} if it cannot be read; an empty workspace in its place would lose the files. */
function parseIndex(text: string): WorkspaceIndex {
  try {
    return WorkspaceIndex.parse(text);
  } catch (cause) {
    throw new Error("a workspace's index in Redis is damaged", { cause });
  }
}
