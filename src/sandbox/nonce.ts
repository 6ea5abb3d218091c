import { randomBytes } from "node:crypto";
import { NONCE_BYTES } from "../wire/frames.ts";

/** Makes the frames of one job valid. Never in memory that user code has. */
export function newNonce(): string {
  return randomBytes(NONCE_BYTES / 2).toString("hex");
}

/** @param expected null: no frame of this kind is expected. */
export function isExpected(nonce: string, expected: string | null): boolean {
  return expected !== null && nonce === expected;
}
