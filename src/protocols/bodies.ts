import { z } from "zod";
import type { BodyKind } from "../http/routes.ts";
import { ClientError } from "../shared/errors.ts";
import { isObject } from "../shared/json/json-object.ts";

/** A text in base64, in which white space is. Its repeats share no character: what they share is tried once for each way to divide it. */
export const BASE64 = /^[A-Za-z0-9+/\s]*(?:={1,2}\s*)?$/;

/** A value of a request as a text that an error may show: `String` of an object calls what the client has put into it. */
export function shown(value: unknown): string {
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "a list" : "an object";
  return String(value).slice(0, 100);
}

/** What a member is told that is wrong. */
export function refused(message: string): ClientError {
  return new ClientError("invalid_request", message);
}

/** The arguments of a program; none where nothing is given. @throws {ClientError} 400 */
export function argumentsOf(given: unknown): readonly string[] {
  if (given === undefined || given === null) return [];
  if (Array.isArray(given) && given.every((arg) => typeof arg === "string")) return given;
  throw refused("args must be an array of strings");
}

/**
 * A JSON object whose members the endpoint checks by itself.
 *
 * @param wrongType says what a body of another type is told; without it, such a body is one without members.
 */
export function jsonObject(wrongType?: string): BodyKind<Record<string, unknown>> {
  return {
    type: "application/json",
    schema: z.looseObject({}),
    required: true,
    errors: wrongType === undefined ? [] : ["wrong_content_type"],
    parse: (request) => {
      if (wrongType !== undefined && !request.is("application/json"))
        throw new ClientError("wrong_content_type", wrongType);
      return isObject(request.body) ? request.body : {};
    },
  };
}
