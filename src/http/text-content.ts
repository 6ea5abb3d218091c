import { createReadStream } from "node:fs";

/** Byte order marks of UTF-16 and UTF-32, in which spreadsheets write text with NUL bytes in it. */
const WIDE_TEXT = ["fffe", "feff"];

/**
 * Whether a file's content may be what its name says: `.csv`, `.json`, `.txt` and `.py` are text, and text has no NUL byte.
 *
 * A program, an archive, a picture or a WebAssembly module under such a name has some. It is stored all the same, as the
 * contract says, and flagged: in the reply, and in the security log.
 */
export async function isTextFile(path: string): Promise<boolean> {
  let first = true;
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    if (first && WIDE_TEXT.includes(chunk.subarray(0, 2).toString("hex"))) return true;
    first = false;
    if (chunk.includes(0)) return false;
  }
  return true;
}
