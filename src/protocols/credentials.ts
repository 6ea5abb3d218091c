import type { Request } from "express";
import type { Credential } from "../http/recognised-protocol.ts";

/** A key in the address, `http://any:KEY@host/`, which HTTP clients send as Basic: for those that can be given nothing but an address. */
export function keyInAddress(request: Request): Credential | undefined {
  const [, encoded] = /^basic +(\S+)$/i.exec(request.get("authorization") ?? "") ?? [];
  if (encoded === undefined) return undefined;
  const text = Buffer.from(encoded, "base64").toString("latin1");
  return { kind: "key", key: text.slice(text.indexOf(":") + 1) || text.replace(/:$/, "") };
}
