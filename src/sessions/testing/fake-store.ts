import { turn } from "../../executor/testing/fake-sandbox.ts";
import type { Blob } from "../../shared/blob-folder.ts";
import { ClientError } from "../../shared/errors.ts";
import {
  MissingBlobError,
  type NewSnapshot,
  type SessionLease,
  type SessionRecord,
  type SessionStore,
} from "../store.ts";

/** What outlives every server. */
export interface Disk {
  readonly records: Map<string, SessionRecord>;
  readonly blobs: Map<string, Uint8Array>;
  /** By session: the server that has its lease. */
  readonly leases: Map<string, FakeStore>;
}

export const newDisk = (): Disk => ({ records: new Map(), blobs: new Map(), leases: new Map() });

/** One server's way to the store. The test says when the store is away, and when the server crashes: then nothing more comes of what is under way. */
export class FakeStore implements SessionStore {
  onInterrupt: (id: string) => void = () => {};
  isAway = false;
  readonly #disk: Disk;
  #isCrashed = false;

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  /** As `kill -9` does: leases end, and no call returns any more. */
  crash(): void {
    this.#isCrashed = true;
    for (const [id, store] of this.#disk.leases) if (store === this) this.#disk.leases.delete(id);
  }

  async create(record: SessionRecord): Promise<void> {
    await this.#step();
    this.#disk.records.set(record.id, record);
  }

  async get(id: string): Promise<SessionRecord | undefined> {
    await this.#step();
    return this.#disk.records.get(id);
  }

  async read(_id: string, { sha256 }: Blob): Promise<Uint8Array> {
    await this.#step();
    const bytes = this.#disk.blobs.get(sha256);
    if (!bytes) throw new MissingBlobError("it is missing");
    return bytes;
  }

  async list(): Promise<readonly SessionRecord[]> {
    return [...this.#disk.records.values()];
  }

  async acquire(id: string): Promise<SessionLease | undefined> {
    await this.#step();
    const { leases, records } = this.#disk;
    while (leases.has(id)) await this.#step();
    leases.set(id, this);
    const record = records.get(id);
    return record && new FakeLease(this.#disk, this, record, () => this.#step());
  }

  async ended(): Promise<readonly { id: string }[]> {
    return [];
  }

  async deleteEnded(): Promise<void> {}
  async announceInterrupt(): Promise<void> {}
  async followClock(): Promise<void> {}
  async close(): Promise<void> {}

  async #step(): Promise<void> {
    await turn();
    if (this.#isCrashed) await new Promise(() => {});
    if (this.isAway) throw new ClientError("store_unavailable", "The store is away.");
  }
}

class FakeLease implements SessionLease {
  record: SessionRecord;
  readonly lost = new AbortController().signal;
  readonly #disk: Disk;
  readonly #owner: FakeStore;
  readonly #step: () => Promise<void>;

  constructor(disk: Disk, owner: FakeStore, record: SessionRecord, step: () => Promise<void>) {
    this.#disk = disk;
    this.#owner = owner;
    this.record = record;
    this.#step = step;
  }

  async commit(record: SessionRecord, snapshot?: NewSnapshot): Promise<void> {
    await this.#step();
    if (this.#disk.leases.get(record.id) !== this.#owner) throw new ClientError("session_moved");
    if (snapshot) this.#disk.blobs.set(snapshot.blob.sha256, snapshot.bytes);
    this.#disk.records.set(record.id, record);
    this.record = record;
    // A server may crash after the store has the change, and before it knows.
    await turn();
    if (this.#disk.leases.get(record.id) !== this.#owner) await new Promise(() => {});
  }

  async delete(): Promise<void> {
    await this.#step();
    this.#disk.records.delete(this.record.id);
  }

  async release(): Promise<void> {
    if (this.#disk.leases.get(this.record.id) === this.#owner) this.#disk.leases.delete(this.record.id);
  }
}
