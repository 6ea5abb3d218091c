import type { Request, Response } from "express";
import { ClientError } from "../../shared/errors.ts";

const MAX_LIMIT = 100;

/**
 * The part of a list that a request asks for (`limit`, `nextToken`); a header has where the next begins.
 *
 * @param idOf what comes after it is the next part: what was made meanwhile moves nothing.
 */
export function paginate<T>(request: Request, response: Response, all: readonly T[], idOf: (entry: T) => string): T[] {
  const { limit: asked = MAX_LIMIT, nextToken } = request.query;
  const limit = Number(asked);
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_LIMIT)
    throw new ClientError("invalid_request", `limit must be a whole number from 1 to ${MAX_LIMIT}.`);
  const after = nextToken === undefined ? -1 : all.findIndex((entry) => tokenOf(idOf(entry)) === nextToken);
  if (nextToken !== undefined && after < 0) throw new ClientError("invalid_request", "nextToken is of no list.");
  const part = all.slice(after + 1, after + 1 + limit);
  const last = part.at(-1);
  if (last !== undefined && after + 1 + limit < all.length) response.setHeader("X-Next-Token", tokenOf(idOf(last)));
  return part;
}

function tokenOf(id: string): string {
  return Buffer.from(id).toString("base64url");
}
