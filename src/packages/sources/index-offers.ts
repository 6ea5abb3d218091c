import type { PythonPlatform } from "../pep/platform.ts";
import { isSpecifier } from "../pep/versions.ts";
import { type ListedFile, selectFiles, type UnusableFile } from "./package-source.ts";
import { type IndexFile, parseProject } from "./simple-api.ts";

/** More of one package's, for this Python, than any index has: what is older is not offered. */
const MAX_CANDIDATES = 10_000;
const MAX_UNUSABLE = 1_000;
const MAX_ADDRESS_CHARACTERS = 4_096;

/** A project's page of an index. */
export interface IndexPage {
  readonly bytes: Uint8Array;
  /** Without parameters, in lower case. */
  readonly contentType: string;
  /** Of the page: relative addresses count from here. */
  readonly address: string;
}

/** A file that an index lists, and that this Python could install. */
export interface IndexCandidate {
  readonly filename: string;
  readonly version: string;
  /** Absolute, without a login or fragment. */
  readonly url: string;
  readonly sha256: string;
  /** As the page has it; empty: it says nothing. */
  readonly requiresPython: string;
  /** Of its metadata, which is beside it; null: it is not. */
  readonly metadataSha256: string | null;
}

/** Best first. */
export interface IndexOffers {
  readonly candidates: readonly IndexCandidate[];
  /** One of each kind. */
  readonly unusable: readonly UnusableFile[];
}

/**
 * What a page offers of a package.
 *
 * @param key the package's normalised name.
 * @throws {NotSimpleApi} if the page is no project's.
 */
export function indexOffers(
  { bytes, contentType, address }: IndexPage,
  key: string,
  python: PythonPlatform,
): IndexOffers {
  const page = new URL(address);
  const listed = parseProject(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length), contentType).map((file) =>
    listedFile(file, page),
  );
  const { candidates, unusable } = selectFiles(key, listed, python);
  const kinds = new Map(unusable.map((file) => [`${file.reason} ${file.detail}`, file]));
  return { candidates: candidates.slice(0, MAX_CANDIDATES), unusable: [...kinds.values()].slice(0, MAX_UNUSABLE) };
}

function listedFile(file: IndexFile, page: URL): ListedFile<IndexCandidate> {
  const { filename, hashes } = file;
  const stated = file["requires-python"] ?? "";
  const requiresPython = isSpecifier(stated) ? stated : "";
  const url =
    file.url.length <= MAX_ADDRESS_CHARACTERS && URL.canParse(file.url, page) ? new URL(file.url, page) : null;
  // Nothing that anybody on the way could have put there is installed, nor fetched from a place less safe than the page.
  const isSafe = url !== null && (url.protocol === "https:" || url.protocol === page.protocol);
  const isDowngrade = url?.protocol === "http:" && page.protocol === "https:";
  const sha256 = hashes.sha256;
  const offered = file["core-metadata"] ?? file["dist-info-metadata"];
  const metadataSha256 = typeof offered === "object" ? (offered.sha256 ?? null) : null;
  return {
    filename,
    requiresPython,
    yanked: file.yanked !== undefined && file.yanked !== false,
    refused: isSafe
      ? null
      : isDowngrade
        ? `at http://${url.host}, behind an index of https`
        : "at an address that is not HTTP",
    toCandidate:
      !isSafe || sha256 === undefined
        ? null
        : ({ version }) => ({ filename, version, url: withoutLogin(url), sha256, requiresPython, metadataSha256 }),
  };
}

function withoutLogin(url: URL): string {
  return Object.assign(url, { hash: "", username: "", password: "" }).href;
}
