import { AsyncLocalStorage } from "node:async_hooks";
import { PackageError } from "./package-error.ts";

/** As long as the cache keeper leaves alone what is new, and until it looks again. */
const KEEP_MS = 3 * 3_600_000;
const MAX_OWN_RETRIES = 3;

interface Installation {
  readonly principal: string;
  readonly charge: (key: string, bytes: number) => void;
}
const installation = new AsyncLocalStorage<Installation>();

/** A principal's packages would take more than its share. */
class ShareTaken extends PackageError {
  readonly principal: string;

  constructor(principal: string, maxBytes: number) {
    super(
      "package_share_full",
      `Your packages, and what was fetched and built for you in the last hours, would take more than your share, ${Math.floor(maxBytes / 2 ** 20)} MiB. Remove packages, or try again later.`,
    );
    this.principal = principal;
  }
}

/**
 * Says that something is about to be on the disk for the installation that is under way, if one is; the same `key` again replaces what was said.
 *
 * @throws {PackageError} `package_share_full`: its principal may have no more.
 */
export function chargeShare(key: string, bytes: number): void {
  installation.getStore()?.charge(key, bytes);
}

/** For whom packages are being installed; null: for the server's own environments. */
export function installingPrincipal(): string | null {
  return installation.getStore()?.principal ?? null;
}

/** Names the archive of a set of packages, whatever it was made for. */
export function archiveShareKey(filenames: readonly string[]): string {
  return `archive ${filenames.toSorted().join(" ")}`;
}

/**
 * How much of the disk each principal's packages take: wheels, archives and images, of what is installed and of what was fetched or built for
 * it in the last three hours. It is counted for each of those who have the same: no share tells what others have.
 */
export class PackageShares {
  readonly #maxBytes: number;
  readonly #now: () => number;
  readonly #charges = new Map<string, Map<string, { readonly bytes: number; readonly atMs: number }>>();

  /** @param maxBytes of one principal. */
  constructor(maxBytes: number, now: () => number = () => performance.now()) {
    this.#maxBytes = maxBytes;
    this.#now = now;
  }

  /** Does what may put something on the disk for a principal. @throws {PackageError} `package_share_full` */
  async installing<T>(principal: string, work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await installation.run({ principal, charge: (key, bytes) => this.#charge(principal, key, bytes) }, work);
      } catch (error) {
        // What two install at once is fetched once; that another may not is no reason for this one.
        const isOthers = error instanceof ShareTaken && error.principal !== principal;
        if (!isOthers || attempt > MAX_OWN_RETRIES) throw error;
      }
    }
  }

  #charge(principal: string, key: string, bytes: number): void {
    const nowMs = this.#now();
    const own = this.#charges.get(principal) ?? new Map();
    this.#charges.set(principal, own);
    let total = bytes;
    for (const [other, charge] of own) {
      if (nowMs - charge.atMs > KEEP_MS) own.delete(other);
      else if (other !== key) total += charge.bytes;
    }
    if (total > this.#maxBytes) throw new ShareTaken(principal, this.#maxBytes);
    own.set(key, { bytes, atMs: nowMs });
  }
}
