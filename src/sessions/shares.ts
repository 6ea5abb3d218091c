import { ClientError } from "../shared/errors.ts";

/** How much of a session store a principal may take. */
export interface SessionShares {
  /** Most that all states and files may take together, bytes. */
  readonly maxBytes: number;
  /** Most of one principal, bytes. */
  readonly maxBytesOfPrincipal: number;
  /** A principal has room up to here whatever the others take, bytes. */
  readonly guaranteedBytes: number;
}

/** What a content costs beside its bytes: a row of the index, a file's name. Without it, empty files would be free. */
export const INDEX_BYTES_PER_CONTENT = 512;

/**
 * @param principals how many have keys.
 * @param maxBytesOfPrincipal 0: an equal part each, so that what one stores never takes another's room.
 */
export function sharesOf(maxBytes: number, principals: number, maxBytesOfPrincipal = 0): SessionShares {
  const equalPart = Math.floor(maxBytes / Math.max(1, principals));
  const most = Math.min(maxBytes, maxBytesOfPrincipal || equalPart);
  return { maxBytes, maxBytesOfPrincipal: most, guaranteedBytes: Math.min(most, equalPart) };
}

/**
 * Keys that are added make equal parts smaller, so others may have more than theirs: up to its own, a principal has room
 * all the same, and the store is larger than it should be until they have deleted something.
 *
 * @param own what the principal would take, bytes.
 * @param all what all would take together, bytes.
 * @throws {ClientError} 507 `store_full`.
 */
export function checkShare(
  { maxBytes, maxBytesOfPrincipal, guaranteedBytes }: SessionShares,
  own: number,
  all: number,
): void {
  if (own > maxBytesOfPrincipal) throw shareTaken(maxBytesOfPrincipal);
  if (own > guaranteedBytes && all > maxBytes) throw storeFull();
}

export function shareTaken(maxBytes: number): ClientError {
  const share = Number((maxBytes / 2 ** 20).toFixed(1));
  return new ClientError(
    "store_full",
    `Your sessions would take more than your share of the session store, ${share} MiB. Delete sessions or checkpoints first.`,
  );
}

export function storeFull(cause?: unknown): ClientError {
  return new ClientError("store_full", "The session store is full. Delete sessions first.", { cause });
}
