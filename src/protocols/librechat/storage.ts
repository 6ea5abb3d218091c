import { createHash, randomBytes } from "node:crypto";
import path from "node:path";
import type { Services } from "../../service/execution-service.ts";
import { ClientError } from "../../shared/errors.ts";
import { nameInHome } from "../program.ts";

/** LibreChat asks for a file no more after 23 hours, and shows links to it for 24. */
const TTL_MS = 24 * 3600 * 1000;
/** LibreChat takes no other ids: of nanoid's letters, as many as that has. */
const ID_CHARACTERS = 21;
const OWNER = "librechat";

/** A file of a storage session, as clients name it. */
export interface StoredFile {
  readonly id: string;
  readonly storageSession: string;
  /** Relative to the home folder. */
  readonly name: string;
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
  readonly mtimeMs: number;
  /** What code makes of it is not shown. */
  readonly isReadOnly: boolean;
}

export function newStorageId(): string {
  return randomBytes(16).toString("base64url").slice(0, ID_CHARACTERS);
}

/**
 * What LibreChat calls a session: a set of files under one id, which ends a day after it was written. It is a session in which nothing runs: the files
 * are as durable, bounded and their principal's own as those of any session.
 */
export class Storage {
  readonly #services: Services;
  readonly #principal: string;
  /** Of this request: most files that one names are in one session. */
  readonly #listed = new Map<string, readonly StoredFile[]>();

  constructor(services: Services, principal: string) {
    this.#services = services;
    this.#principal = principal;
  }

  /**
   * Keeps files under a new id, all or none.
   *
   * @param files by their paths in the sandbox.
   * @throws {ClientError} 429 `session_limit`; 413 `session_full`, `workspace_full`; 507.
   */
  async create(
    id: string,
    files: ReadonlyMap<string, Uint8Array>,
    signal: AbortSignal,
    isReadOnly = false,
  ): Promise<readonly StoredFile[]> {
    const { sessions, packages } = this.#services;
    const metadata = { protocol: OWNER, ...(isReadOnly && { readOnly: "true" }) };
    await sessions.create(this.#principal, { environment: packages.defaultEnvironment, ttlMs: TTL_MS, id, metadata });
    try {
      await sessions.files.writeAll(this.#principal, id, signal, files);
    } catch (error) {
      await sessions.delete(this.#principal, id, new AbortController().signal);
      throw error;
    }
    return await this.list(id);
  }

  /** @throws {ClientError} 404 if there is none of this id, or it is another principal's. */
  async list(id: string): Promise<readonly StoredFile[]> {
    const { sessions } = this.#services;
    const { metadata } = await sessions.record(this.#principal, id);
    if (metadata?.protocol !== OWNER) throw new ClientError("session_not_found");
    const isReadOnly = metadata.readOnly === "true";
    const index = await sessions.files.index(this.#principal, id);
    return index.listing.flatMap(({ path, mtimeMs }): StoredFile[] => {
      const name = nameInHome(path);
      const entry = index.get(path);
      if (entry?.kind !== "file" || name === null) return [];
      const { size, sha256 } = entry;
      return [{ id: fileId(id, path), storageSession: id, name, path, size, sha256, mtimeMs, isReadOnly }];
    });
  }

  /** @throws {ClientError} 404 `not_found` for what is not there, or another principal's. */
  async get(id: string, file: string): Promise<StoredFile> {
    const files =
      this.#listed.get(id) ??
      (await this.list(id).catch((error: unknown) => {
        throw error instanceof ClientError && error.code === "session_not_found" ? fileNotFound() : error;
      }));
    this.#listed.set(id, files);
    const found = files.find((one) => one.id === file);
    if (found === undefined) throw fileNotFound();
    return found;
  }

  /** @param onSize called before the content is read; what it throws is thrown. */
  async read({ storageSession, path }: StoredFile, onSize?: (bytes: number) => void): Promise<Uint8Array> {
    return await this.#services.sessions.files.read(this.#principal, storageSession, path, onSize);
  }

  async remove({ storageSession, path }: StoredFile, signal: AbortSignal): Promise<void> {
    await this.#services.sessions.files.delete(this.#principal, storageSession, signal, path);
  }
}

/** Told from where the file is: nothing has to be kept for it. */
function fileId(session: string, filePath: string): string {
  return createHash("sha256").update(`${session}/${filePath}`).digest("base64url").slice(0, ID_CHARACTERS);
}

/** As an object store would name it. */
export function objectName({ storageSession, id, name }: StoredFile): string {
  return `${storageSession}/${id}${path.posix.extname(name)}`;
}

function fileNotFound(): ClientError {
  return new ClientError("not_found", "File not found");
}
