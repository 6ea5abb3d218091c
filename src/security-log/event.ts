import { hash } from "node:crypto";
import { MAX_FIELD_BYTES } from "./limits.ts";

/** What the security log records. The `log_…` events are written by the log about itself. */
export type SecurityEventName =
  | "code_execution"
  | "code_execution_error"
  | "file_upload"
  | "file_write"
  | "file_delete"
  | "files_clear"
  | "package_install"
  | "state_reset"
  | "session_create"
  | "session_delete"
  | "secret_put"
  | "secret_delete"
  | "statistics_clear"
  | "auth_failure"
  | "access_denied"
  | "rate_limited"
  /** User code called a tool of its caller's client, or asked its user. */
  | "tool_call"
  /** User code asked a host for something through the server. */
  | "network_request"
  /** It asked for what NETWORK_ALLOW, or the rules for addresses and requests, do not permit. */
  | "network_refused"
  /** A line that was being written when the server died was cut off; `details.torn` is what there was of it. */
  | "log_recovered"
  /** Lines were changed, removed or added from outside; `verifySecurityLog` names the first. */
  | "log_damaged"
  /** `details.lost` events could not be written, nor be kept in memory until they could. */
  | "log_gap"
  /**
   * The oldest file was deleted to keep the log below its size: lines up to `details.toSeq`, of which the last had the hash
   * `details.lastHash`. `details.intact` is false if they had been changed before.
   */
  | "log_sealed";

/** What user code can cause, as often as it likes: of these the log writes so many lines a minute for a principal, and counts the others. */
export type CodeEventName = "tool_call" | "network_request" | "network_refused" | "package_install";

/** One for each request, at the most. */
export type RequestEvent = SecurityEvent & { readonly event: Exclude<SecurityEventName, CodeEventName> };

export interface SecurityEvent {
  readonly event: SecurityEventName;
  /** Null where no request caused the event. */
  readonly ip: string | null;
  readonly userAgent: string | null;
  readonly requestId: string | null;
  readonly principal: string | null;
  /** Flat, so that nothing in it can fail to become JSON. */
  readonly details: Readonly<Record<string, string | number | boolean | null | undefined>>;
}

/** An event and its place in the chain: what one line says. */
export interface SecurityLogLine extends SecurityEvent {
  /** ISO 8601 with `Z`. */
  readonly timestamp: string;
  readonly level: "SECURITY";
  /** 1 for the first line there ever was, then one more for each, across rotation and restart. */
  readonly seq: number;
  /** SHA-256 hex of the line before, without its newline; 64 zeros for the first. */
  readonly previous: string;
}

// Of what clients choose. In bytes of the line, since a control character becomes six of them.
const MAX_DETAIL_BYTES = 1024;
/** What LOG_CODE asks for. */
const LONG: ReadonlySet<string> = new Set(["code", "arguments"]);
/** `\u0000` */
const LONGEST_ESCAPE = 6;
/** Longer code, of which there may be 10 MiB, is written as the base64 of its bytes: that is quick, and grows by a third at most. */
const MAX_CODE_CHARACTERS = 100_000;

/**
 * One line of the log, without newline.
 *
 * Every control and format character is written as `\uXXXX`: a newline in a header would begin a line of its own, and
 * JSON leaves C1 controls, bidirectional overrides and U+2028 as they are, which a terminal or an editor acts upon.
 */
export function serializeLine(event: SecurityEvent, timestamp: string, seq: number, previous: string): string {
  const details: Record<string, string | number | boolean | null | undefined> = {};
  const { codeBase64, ...others } = event.details;
  for (const [name, value] of Object.entries(others)) {
    if (typeof value !== "string") details[name] = value;
    else details[name] = LONG.has(name) ? value.slice(0, MAX_CODE_CHARACTERS) : cut(value, MAX_DETAIL_BYTES);
  }
  const line: SecurityLogLine = {
    timestamp,
    level: "SECURITY",
    event: event.event,
    ip: cut(event.ip),
    userAgent: cut(event.userAgent),
    requestId: cut(event.requestId),
    principal: cut(event.principal),
    details,
    seq,
    previous,
  };
  const json = escapeControls(JSON.stringify(line));
  // Nothing in it has to be escaped, and looking for that in 14 MB would hold up all requests.
  return codeBase64 === undefined ? json : `${json.slice(0, -1)},"codeBase64":"${codeBase64}"}`;
}

/** JSON text with control and format characters, which can stand only inside its strings, as `\uXXXX`. */
export function escapeControls(json: string): string {
  // Most is plain ASCII, which a class of Unicode's takes ten times as long to tell.
  if (!/[^ -~]/.test(json)) return json;
  return json.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => {
    let escaped = "";
    for (let i = 0; i < character.length; i++) {
      escaped += `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`;
    }
    return escaped;
  });
}

/**
 * What an event says of code that a caller sent.
 *
 * @param code as it was sent; `codeLength` counts its characters.
 * @param logCode the setting LOG_CODE: record the code itself, too, all of it: as `code`, or where that would be long as `codeBase64`,
 *   the base64 of `bytes`.
 * @param bytes what `codeHash` is the SHA-256 hex of; default: the code in UTF-8.
 */
export function codeDetails(
  code: string,
  logCode: boolean,
  bytes: Uint8Array = Buffer.from(code, "utf8"),
): {
  readonly codeHash: string;
  readonly codeLength: number;
  readonly code?: string;
  readonly codeBase64?: string;
} {
  const codeHash = hash("sha256", bytes, "hex");
  const facts = { codeHash, codeLength: code.length };
  if (!logCode) return facts;
  if (code.length <= MAX_CODE_CHARACTERS) return { ...facts, code };
  return { ...facts, codeBase64: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("base64") };
}

/** The beginning of a text that takes no more than so many bytes of a line. */
function cut(value: string | null, maxBytes = MAX_FIELD_BYTES): string | null {
  if (value === null || value.length * LONGEST_ESCAPE <= maxBytes) return value;
  let bytes = 0;
  let end = 0;
  for (const character of value) {
    bytes += Buffer.byteLength(escapeControls(JSON.stringify(character))) - 2;
    if (bytes > maxBytes) return `${value.slice(0, end)}…`;
    end += character.length;
  }
  return value;
}
