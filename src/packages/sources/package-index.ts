import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import type { HttpFetcher } from "../fetcher.ts";
import { PackageError } from "../package-error.ts";
import { readIndexOffers, readMetadataText } from "../package-texts.ts";
import type { PythonPlatform } from "../pep/platform.ts";
import { readWheelMetadata } from "../wheel.ts";
import type { WheelStore } from "../wheel-store.ts";
import type { IndexCandidate } from "./index-offers.ts";
import type { Candidate, CandidateRequirements, Offers, PackageSource } from "./package-source.ts";
import { NotSimpleApi, SIMPLE_API_TYPES } from "./simple-api.ts";

const MAX_PROJECT_BYTES = 16 * 1024 * 1024;
const MAX_METADATA_BYTES = 8 * 1024 * 1024;
const KEEP_MS = 300_000;
const KEEP_PROJECTS = 500;
const MANY_CANDIDATES = 1_000;
/** Of all projects that are kept together. */
const KEEP_CANDIDATES = 100_000;

/**
 * A Python package index that speaks the simple API, in JSON (PEP 691) or HTML (PEP 503), with metadata beside the wheels where
 * offered (PEP 658). Files without a SHA-256 are not offered.
 */
export class IndexSource implements PackageSource {
  readonly description: string;
  readonly #base: URL;
  readonly #python: PythonPlatform;
  readonly #remote: HttpFetcher;
  readonly #store: WheelStore;
  readonly #projects = new Map<string, { readonly untilMs: number; readonly offers: Promise<Offers> }>();
  #keptCandidates = 0;

  /** @param store where a wheel goes that has to be fetched to learn what it depends on. */
  constructor(address: string, python: PythonPlatform, remote: HttpFetcher, store: WheelStore) {
    this.#base = new URL(address.endsWith("/") ? address : `${address}/`);
    this.description = `index ${this.#base.host}`;
    this.#python = python;
    this.#remote = remote;
    this.#store = store;
  }

  async find(key: string): Promise<Offers> {
    const kept = this.#projects.get(key);
    if (kept !== undefined && kept.untilMs > performance.now()) return await kept.offers;
    const offers = this.#ask(key);
    const oldest = this.#projects.keys().next().value;
    if (this.#projects.size >= KEEP_PROJECTS && oldest !== undefined) this.#projects.delete(oldest);
    this.#projects.set(key, { untilMs: performance.now() + KEEP_MS, offers });
    offers.catch(() => this.#projects.delete(key));
    return await offers;
  }

  async #ask(key: string): Promise<Offers> {
    const address = new URL(`${encodeURIComponent(key)}/`, this.#base);
    const answer = await this.#remote.bytes(address, { accept: SIMPLE_API_TYPES, maxBytes: MAX_PROJECT_BYTES });
    if (answer === null) return { candidates: [], unusable: [] };
    const { bytes, contentType } = answer;
    const page = { bytes, contentType, address: answer.url.href };
    const { candidates, unusable } = await readIndexOffers(page, key, this.#python).catch((cause) => {
      if (!(cause instanceof NotSimpleApi)) throw cause;
      const message = `${this.description} answered with ${cause.message}.`;
      throw new PackageError("package_source_unavailable", message, { cause });
    });
    // To have taken them over from another thread was one turn's work.
    if (candidates.length > MANY_CANDIDATES) await setImmediate();
    this.#keptCandidates += candidates.length;
    if (this.#keptCandidates > KEEP_CANDIDATES) {
      this.#projects.clear();
      this.#keptCandidates = 0;
    }
    return { candidates: candidates.map((candidate) => this.#candidate(key, candidate)), unusable };
  }

  #candidate(
    key: string,
    { filename, version, sha256, url, requiresPython, metadataSha256 }: IndexCandidate,
  ): Candidate {
    const download = { filename, sha256, location: { url: this.#withCredentials(url) } };
    const read = async (): Promise<CandidateRequirements> => {
      const metadata = metadataSha256 === null ? null : await this.#fetchMetadata(url, filename, metadataSha256);
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
  async #fetchMetadata(url: string, filename: string, sha256: string): Promise<CandidateRequirements | null> {
    const address = new URL(this.#withCredentials(url));
    address.pathname += ".metadata";
    const answer = await this.#remote.bytes(address, { accept: "*/*", maxBytes: MAX_METADATA_BYTES });
    if (answer === null) return null;
    if (createHash("sha256").update(answer.bytes).digest("hex") !== sha256)
      throw new PackageError("package_damaged", `The metadata of ${filename} does not match its SHA-256.`);
    return await readMetadataText(answer.bytes.toString("utf8"), filename);
  }

  /** Files on the index's own host are behind the same login as the index. @param url without a login or fragment. */
  #withCredentials(url: string): string {
    const { username, password, origin } = this.#base;
    if ((username === "" && password === "") || !url.startsWith(`${origin}/`)) return url;
    return Object.assign(new URL(url), { username, password }).href;
  }
}
