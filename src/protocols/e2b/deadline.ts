import type { Request } from "express";

/** When the client of an RPC has given it up, by `performance.now`. */
export function deadlineOf(request: Request): number {
  const given = Number(request.get("connect-timeout-ms"));
  return given > 0 ? performance.now() + given : Number.POSITIVE_INFINITY;
}
