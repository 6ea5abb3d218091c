import { createHash } from "node:crypto";
import type { Request } from "express";
import type { Credential } from "../../http/recognised-protocol.ts";
import { ClientError } from "../../shared/errors.ts";

/** Of E2B's sandboxes: what runs code, and what has files and processes. */
export const INTERPRETER_PORT = 49999;
export const ENVD_PORT = 49983;

/** Which sandbox a request is for, and what of it. */
export interface SandboxAddress {
  readonly id: string;
  readonly port: number;
}

/** `49999-id.example.com`, as clients have it that know a domain alone. */
const HOST = /^(\d{1,5})-([a-z0-9]{1,64})\./i;

/** The sandbox by the headers, else by the name of the host; null: it is for no sandbox. */
export function addressOf(request: Request): SandboxAddress | null {
  const id = request.get("e2b-sandbox-id");
  if (id !== undefined) return { id, port: Number(request.get("e2b-sandbox-port") ?? ENVD_PORT) };
  const [, port, name] = HOST.exec(request.get("host") ?? "") ?? [];
  return port === undefined || name === undefined ? null : { id: name.toLowerCase(), port: Number(port) };
}

const NAMES_NO_SANDBOX =
  "This address of a file names no sandbox: with E2B_SANDBOX_URL the SDK leaves it out. Send the header E2b-Sandbox-Id along, or reach the server by names of hosts (E2B_DOMAIN), or use files.read and files.write.";

/** The address of a file as `downloadUrl` and `uploadUrl` have it. */
export function isSignedFile(request: Request): boolean {
  // The query is parsed whenever it is asked for, and every request of the server passes here.
  if (request.path !== "/files") return false;
  const { signature } = request.query;
  return typeof signature === "string" && /^v1_/.test(signature);
}

/** Of the tokens that its creator's clients are given. */
export function purposeOf(sandbox: string): string {
  return `e2b:${sandbox}`;
}

/** The token of a sandbox, or what was signed with it; keys are where the server's own clients have them. */
export function credentialOf(request: Request): Credential | undefined {
  const address = addressOf(request);
  if (address === null) {
    if (isSignedFile(request)) throw new ClientError("not_found", NAMES_NO_SANDBOX);
    return undefined;
  }
  const purpose = purposeOf(address.id);
  const token = request.get("x-access-token") ?? request.get("e2b-traffic-access-token");
  if (token !== undefined) return { kind: "token", token, purpose };
  const { signature } = request.query;
  if (typeof signature !== "string" || request.path !== "/files") return undefined;
  return { kind: "signature", signature, purpose, sign: (token) => signatureOf(request, token) };
}

/** As the SDK signs the address of a file. @throws {ClientError} 401 if its time is over. */
function signatureOf({ method, query }: Request, token: string): string {
  const { path = "", username = "", signature_expiration: expiration } = query as Record<string, string | undefined>;
  if (expiration !== undefined && !(Number(expiration) * 1000 > Date.now()))
    throw new ClientError("unauthorized", "signature is already expired");
  const operation = method === "POST" ? "write" : "read";
  const signed = [path, operation, username, token, ...(expiration === undefined ? [] : [expiration])].join(":");
  return `v1_${createHash("sha256")
    .update(signed)
    .digest("base64")
    .replace(/={1,2}$/, "")}`;
}
