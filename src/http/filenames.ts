import { extname } from "node:path";
import { ClientError } from "../shared/errors.ts";

const FORBIDDEN = /\.\.|[/\\\0]/;
// No file system here takes longer names, and it bounds the work below.
const MAX_NAME_BYTES = 255;
const MAX_SANITISED_CHARACTERS = 200;
const MAX_EXTENSION_CHARACTERS = 20;

/**
 * Checks a file name that a client sent to name an existing file.
 *
 * @param name as Express gives it, that is with the URL's own encoding taken off.
 * @returns the name unchanged.
 * @throws {ClientError} 400 `Invalid filename` for an empty name, `.`, one over 255 bytes, and any with `..`, `/`, `\` or
 *   NUL in it, also percent-encoded any number of times: whatever decodes it once more must not find a path.
 */
export function checkFilename(name: string): string {
  const possible = name !== "" && name !== "." && name.isWellFormed() && Buffer.byteLength(name) <= MAX_NAME_BYTES;
  if (!possible || FORBIDDEN.test(fullyDecoded(name))) throw new ClientError("invalid_filename");
  return name;
}

/** Unlike `decodeURIComponent` it takes `100%.csv`, and encoded ASCII next to it does not escape its notice. */
function fullyDecoded(name: string): string {
  const decoded = name.replace(/%([0-7][0-9a-f])/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return decoded === name ? name : fullyDecoded(decoded);
}

/**
 * Makes the name that an upload gets in the workspace: characters outside `[a-zA-Z0-9.-]` become `_`, as clients of the
 * original system expect. {@link checkFilename} accepts every name this returns.
 *
 * Two names may become one; the later upload then replaces the earlier. At most 200 characters, the extension is kept.
 */
export function sanitiseFilename(originalName: string): string {
  const safe = shortened(originalName.replace(/[^a-zA-Z0-9.-]/g, "_"))
    // Else the name could be uploaded, but never asked for. The last dot stays: it begins the extension.
    .replace(/\.(?=\.)/g, "_");
  return safe === "" || safe === "." ? "_" : safe;
}

function shortened(name: string): string {
  if (name.length <= MAX_SANITISED_CHARACTERS) return name;
  const extension = extname(name);
  const kept = extension.length <= MAX_EXTENSION_CHARACTERS ? extension : "";
  return name.slice(0, MAX_SANITISED_CHARACTERS - kept.length) + kept;
}
