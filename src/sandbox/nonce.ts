import { randomFillSync } from "node:crypto";
import { NONCE_BYTES } from "../wire/frames.ts";

const BYTES = NONCE_BYTES / 2;
/** Random bytes for the next nonces: the generator is asked for many at a time, since a call costs more than the bytes. */
const pool = Buffer.alloc(256 * BYTES);
let used = pool.length;

/** Makes the frames of one job valid. Never in memory that user code has. */
export function newNonce(): string {
  if (used === pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  used += BYTES;
  return pool.toString("hex", used - BYTES, used);
}

/** @param expected null: no frame of this kind is expected. */
export function isExpected(nonce: string, expected: string | null): boolean {
  return expected !== null && nonce === expected;
}
