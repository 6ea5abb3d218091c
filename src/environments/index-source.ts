import { createHash } from "node:crypto";
import { parseCoreMetadata } from "./core-metadata.ts";
import { PackageError } from "./package-error.ts";
import {
  type Candidate,
  type CandidateRequirements,
  type ListedFile,
  type Offers,
  type PackageSource,
  selectFiles,
} from "./package-source.ts";
import type { PythonPlatform } from "./python-platform.ts";
import type { Remote } from "./remote.ts";
import { type IndexFile, NotSimpleApi, parseProject, SIMPLE_API_TYPES } from "./simple-api.ts";
import { isSpecifier } from "./versions.ts";
import { readWheelMetadata } from "./wheel.ts";
import type { WheelStore } from "./wheel-store.ts";

const MAX_PROJECT_BYTES = 16 * 1024 * 1024;
const MAX_METADATA_BYTES = 8 * 1024 * 1024;
const KEEP_MS = 300_000;
const KEEP_PROJECTS = 500;

/**
 * A Python package index that speaks the simple API, in JSON (PEP 691) or HTML (PEP 503), with metadata beside the wheels where
 * offered (PEP 658). Files without a SHA-256 are not offered.
 */
export class IndexSource implements PackageSource {
  readonly description: string;
  readonly #base: URL;
  readonly #python: PythonPlatform;
  readonly #remote: Remote;
  readonly #store: WheelStore;
  readonly #projects = new Map<string, { readonly until: number; readonly offers: Promise<Offers> }>();

  /** @param store where a wheel goes that has to be fetched to learn what it depends on. */
  constructor(address: string, python: PythonPlatform, remote: Remote, store: WheelStore) {
    this.#base = new URL(address.endsWith("/") ? address : `${address}/`);
    this.description = `index ${this.#base.host}`;
    this.#python = python;
    this.#remote = remote;
    this.#store = store;
  }

  async find(key: string): Promise<Offers> {
    const kept = this.#projects.get(key);
    if (kept !== undefined && kept.until > Date.now()) return await kept.offers;
    const offers = this.#ask(key);
    const oldest = this.#projects.keys().next().value;
    if (this.#projects.size >= KEEP_PROJECTS && oldest !== undefined) this.#projects.delete(oldest);
    this.#projects.set(key, { until: Date.now() + KEEP_MS, offers });
    offers.catch(() => this.#projects.delete(key));
    return await offers;
  }

  async #ask(key: string): Promise<Offers> {
    const address = new URL(`${encodeURIComponent(key)}/`, this.#base);
    const answer = await this.#remote.bytes(address, { accept: SIMPLE_API_TYPES, maxBytes: MAX_PROJECT_BYTES });
    if (answer === null) return { candidates: [], unusable: [] };
    const files = this.#parse(answer.bytes, answer.contentType);
    return selectFiles(
      key,
      files.map((file) => this.#listed(file, answer.url)),
      this.#python,
    );
  }

  #parse(bytes: Buffer, contentType: string): readonly IndexFile[] {
    try {
      return parseProject(bytes, contentType);
    } catch (cause) {
      if (!(cause instanceof NotSimpleApi)) throw cause;
      const message = `${this.description} answered with ${cause.message}.`;
      throw new PackageError("package_source_unavailable", message, { cause });
    }
  }

  #listed(file: IndexFile, page: URL): ListedFile {
    const { filename, hashes } = file;
    const requiresPython = file["requires-python"] ?? "";
    const url = URL.canParse(file.url, page) ? new URL(file.url, page) : null;
    // Nothing that anybody on the way could have put there is installed, nor fetched from a place less safe than the page.
    const isSafe = url !== null && (url.protocol === "https:" || url.protocol === page.protocol);
    const isDowngrade = url?.protocol === "http:" && page.protocol === "https:";
    const sha256 = hashes.sha256;
    return {
      filename,
      requiresPython: isSpecifier(requiresPython) ? requiresPython : "",
      yanked: file.yanked !== undefined && file.yanked !== false,
      refused: isSafe
        ? null
        : isDowngrade
          ? `at http://${url.host}, behind an index of https`
          : "at an address that is not HTTP",
      toCandidate:
        !isSafe || sha256 === undefined ? null : (name) => this.#candidate(name, file, url, sha256, requiresPython),
    };
  }

  #candidate(
    { key, version }: { key: string; version: string },
    file: IndexFile,
    url: URL,
    sha256: string,
    requiresPython: string,
  ): Candidate {
    const { filename } = file;
    const download = { filename, sha256, location: { url: this.#withCredentials(url).href } };
    const offered = file["core-metadata"] ?? file["dist-info-metadata"];
    const read = async (): Promise<CandidateRequirements> => {
      const metadata =
        typeof offered === "object" && offered.sha256 !== undefined
          ? await this.#fetchMetadata(url, filename, offered.sha256)
          : null;
      if (metadata !== null) return { ...metadata, requiresPython: metadata.requiresPython || requiresPython };
      const stored = await this.#store.fetch(download);
      return await readWheelMetadata(stored.path, filename);
    };
    let requirements: Promise<CandidateRequirements> | undefined;
    return {
      ...download,
      name: filename.split("-")[0] ?? key,
      key,
      version,
      format: "wheel",
      source: this.description,
      requirements: () => {
        requirements ??= read();
        requirements.catch(() => {
          requirements = undefined;
        });
        return requirements;
      },
    };
  }

  /** @returns null if the index does not have it after all. */
  async #fetchMetadata(url: URL, filename: string, sha256: string): Promise<CandidateRequirements | null> {
    const address = this.#withCredentials(url);
    address.pathname += ".metadata";
    const answer = await this.#remote.bytes(address, { accept: "*/*", maxBytes: MAX_METADATA_BYTES });
    if (answer === null) return null;
    if (createHash("sha256").update(answer.bytes).digest("hex") !== sha256)
      throw new PackageError("package_damaged", `The metadata of ${filename} does not match its SHA-256.`);
    return parseCoreMetadata(answer.bytes.toString("utf8"), filename);
  }

  /** Files on the index's own host are behind the same login as the index. */
  #withCredentials(url: URL): URL {
    const address = new URL(url);
    address.hash = "";
    address.username = url.origin === this.#base.origin ? this.#base.username : "";
    address.password = url.origin === this.#base.origin ? this.#base.password : "";
    return address;
  }
}
