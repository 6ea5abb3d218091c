import type { Request } from "express";

/** What is sent, and read, as text of a form. */
export const FORM = "application/x-www-form-urlencoded";

/**
 * Says what is wrong with the `Content-Type` of a body that a route does not read.
 *
 * @param right what the route reads, most usual first.
 * @returns null: there is no body, or it is of such a type.
 */
export function wrongContentType(request: Request, right: readonly string[]): string | null {
  const type = request.get("content-type");
  const length = Number(request.get("content-length") ?? 0);
  // Clients send "chunked" without a body, too; none of them names its type then.
  const hasBody = length > 0 || (type !== undefined && request.get("transfer-encoding") !== undefined);
  if (!hasBody) return null;
  if (request.is([...right]))
    return looksLikeJson(request) ? `${came(type)}, but looks like JSON: send ${right[0]}.` : null;
  return `${came(type)}: send ${right.join(" or ")}.`;
}

function came(type: string | undefined): string {
  const name = type?.split(";", 1)[0]?.trim().slice(0, 100) ?? "";
  return name === "" ? "The body came without a Content-Type" : `The body came as ${JSON.stringify(name)}`;
}

/** `curl -d '{…}'` without a header. */
function looksLikeJson(request: Request): boolean {
  if (!request.is(FORM)) return false;
  const [first] = Object.keys((request.body ?? {}) as object);
  return first?.trimStart().startsWith("{") === true;
}
