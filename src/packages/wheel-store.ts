import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { copyFile, open, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { hashFile } from "../shared/blob-folder.ts";
import { PARTIAL_FOLDER, partialName, wheelFileName } from "../shared/cache-layout.ts";
import { makeFolder } from "../shared/make-folder.ts";
import { SingleFlight } from "../shared/single-flight.ts";
import { VerifiedFiles } from "../shared/verified-files.ts";
import type { HttpFetcher, RemoteAnswer } from "./fetcher.ts";
import { PackageError, storageError } from "./package-error.ts";
import { chargeShare } from "./package-shares.ts";

/** Where a wheel comes from. Never shown to a client. */
export type WheelLocation = { readonly url: string } | { readonly path: string };

export interface WheelDownload {
  readonly filename: string;
  readonly location: WheelLocation;
  /** Hex. Null only for files of a folder, which the operator vouches for. */
  readonly sha256: string | null;
}

export interface StoredWheel {
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
}

export interface DownloadProgress {
  readonly filename: string;
  readonly receivedBytes: number;
  /** Null while the server has not said. */
  readonly totalBytes: number | null;
}

export interface WheelStoreOptions {
  /** Largest file that is fetched, bytes. */
  readonly maxBytes: number;
}

/**
 * Downloaded wheels by the SHA-256 of their bytes: `<folder>/<sha256>.whl`. A file appears under that name only when all of
 * it is there and the hash is right. An interrupted download stays in `<folder>/partial` and is resumed, also by the next
 * start. One server at a time may use a folder.
 */
export class WheelStore {
  readonly #folder: string;
  readonly #remote: HttpFetcher;
  readonly #maxBytes: number;
  /** By what is fetched, so that the same file is not fetched twice at a time. */
  readonly #fetches = new SingleFlight<StoredWheel>();
  readonly #verified = new VerifiedFiles();

  constructor(folder: string, remote: HttpFetcher, options: Partial<WheelStoreOptions> = {}) {
    this.#folder = folder;
    this.#remote = remote;
    this.#maxBytes = options.maxBytes ?? 512 * 1024 * 1024;
  }

  /**
   * The wheel on disk, fetched if it is not there yet.
   *
   * @param onProgress called for each piece that arrives; not at all if the file is there.
   * @throws {PackageError} `package_damaged` if the bytes do not have the hash that was promised; `package_too_large`;
   * `package_not_found` if the address answers 404; `package_source_unavailable`.
   */
  async fetch(wheel: WheelDownload, onProgress?: (progress: DownloadProgress) => void): Promise<StoredWheel> {
    const stored = wheel.sha256 === null ? null : await this.find(wheel.sha256);
    if (stored !== null) return stored;
    const key = wheel.sha256 ?? JSON.stringify(wheel.location);
    return await this.#fetches.run(key, () =>
      this.#fetch(wheel, onProgress).catch((error: unknown) => {
        throw storageError(error) ?? error;
      }),
    );
  }

  /** @returns null if it is not there, or is damaged, in which case it is removed. */
  async find(sha256: string): Promise<StoredWheel | null> {
    if (!/^[0-9a-f]{64}$/.test(sha256)) return null;
    const file = path.join(this.#folder, wheelFileName(sha256));
    const bytes = await sizeOf(file);
    if (bytes === null) return null;
    if (await this.#verified.matches(file, sha256)) return { path: file, sha256, bytes };
    await rm(file, { force: true });
    return null;
  }

  async #fetch(
    wheel: WheelDownload,
    onProgress: ((progress: DownloadProgress) => void) | undefined,
  ): Promise<StoredWheel> {
    const partialFolder = path.join(this.#folder, PARTIAL_FOLDER);
    await makeFolder(partialFolder);
    const name = createHash("sha256")
      .update(wheel.sha256 ?? JSON.stringify(wheel.location))
      .digest("hex");
    const partial = path.join(partialFolder, partialName(name));
    const resumedFrom = (await sizeOf(partial)) ?? 0;
    if ("path" in wheel.location) await this.#copy(wheel.location.path, wheel.filename, partial);
    else await this.#download(wheel.location.url, wheel, partial, onProgress);
    const sha256 = await hashFile(partial);
    if (wheel.sha256 !== null && sha256 !== wheel.sha256) {
      await rm(partial, { force: true });
      // The first part may be another file's, or what a crash left behind; one fetch from the beginning tells.
      if (resumedFrom > 0 && "url" in wheel.location) return await this.#fetch(wheel, onProgress);
      throw new PackageError(
        "package_damaged",
        `${wheel.filename} is refused: its SHA-256 is ${sha256}, but ${wheel.sha256} was promised.`,
      );
    }
    const bytes = (await stat(partial)).size;
    const file = path.join(this.#folder, wheelFileName(sha256));
    await rename(partial, file);
    this.#verified.add(file, sha256);
    return { path: file, sha256, bytes };
  }

  async #copy(source: string, filename: string, partial: string): Promise<void> {
    try {
      const { size } = await stat(source);
      if (size > this.#maxBytes) throw tooLarge(filename, this.#maxBytes);
      chargeShare(shareKeyOf(filename), size);
      await copyFile(source, partial, constants.COPYFILE_FICLONE);
    } catch (cause) {
      const own = cause instanceof PackageError ? cause : storageError(cause);
      if (own !== null) throw own;
      throw new PackageError("package_source_unavailable", `${filename} cannot be read from its folder.`, { cause });
    }
  }

  async #download(
    url: string,
    { filename }: WheelDownload,
    partial: string,
    onProgress: ((progress: DownloadProgress) => void) | undefined,
  ): Promise<void> {
    let start = 0;
    const headers = async (): Promise<Record<string, string>> => {
      start = (await sizeOf(partial)) ?? 0;
      return start === 0 ? {} : { range: `bytes=${start}-` };
    };
    const receive = async (answer: RemoteAnswer): Promise<void> => {
      if (answer.status === 404 || answer.status === 410)
        throw new PackageError(
          "package_not_found",
          `${filename} is gone: ${answer.url.host} answered ${answer.status}.`,
        );
      if (answer.status === 416) {
        // What is there is as long as the file, or longer; the hash decides.
        if (Number(answer.header("content-range")?.split("/")[1]) === start) return;
        await rm(partial, { force: true });
        throw Object.assign(new Error("the partial file does not fit"), { code: "ECONNRESET" });
      }
      if ((answer.header("content-type") ?? "").startsWith("text/html"))
        throw new PackageError(
          "package_source_unavailable",
          `${answer.url.host} sent a web page instead of ${filename}.`,
        );
      const offset = answer.status === 206 ? rangeStart(answer.header("content-range")) : 0;
      const append = offset === start && start > 0;
      if (offset !== 0 && !append)
        throw new PackageError(
          "package_source_unavailable",
          `${answer.url.host} sent another part than was asked for.`,
        );
      const announced = Number(answer.header("content-length"));
      const totalBytes = announced > 0 ? announced + (append ? start : 0) : null;
      if ((totalBytes ?? 0) > this.#maxBytes) throw tooLarge(filename, this.#maxBytes);
      let receivedBytes = append ? start : 0;
      chargeShare(shareKeyOf(filename), totalBytes ?? receivedBytes);
      // Each piece is on disk before the next is taken, so that a broken connection costs none of what arrived.
      const file = await open(partial, append ? "a" : "w");
      try {
        for await (const chunk of answer.body as AsyncIterable<Buffer>) {
          receivedBytes += chunk.length;
          if (receivedBytes > this.#maxBytes) throw tooLarge(filename, this.#maxBytes);
          if (totalBytes === null || receivedBytes > totalBytes) chargeShare(shareKeyOf(filename), receivedBytes);
          await file.writeFile(chunk);
          onProgress?.({ filename, receivedBytes, totalBytes });
        }
      } finally {
        await file.close();
      }
    };
    try {
      await this.#remote.get(url, { headers, accepted: [404, 410, 416] }, receive);
    } catch (error) {
      if (error instanceof PackageError && error.code === "package_too_large") await rm(partial, { force: true });
      throw error;
    }
  }
}

/** Names a wheel among what is counted of a principal's. */
export function shareKeyOf(filename: string): string {
  return `wheel ${filename}`;
}

function rangeStart(contentRange: string | null): number {
  return Number(/^bytes (\d+)-/.exec(contentRange ?? "")?.[1] ?? Number.NaN);
}

function tooLarge(filename: string, maxBytes: number): PackageError {
  return new PackageError("package_too_large", `${filename} is larger than ${maxBytes} bytes.`);
}

async function sizeOf(file: string): Promise<number | null> {
  return await stat(file).then(
    (found) => found.size,
    (error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return null;
      throw storageError(error) ?? error;
    },
  );
}
