import fs from "node:fs";
import path from "node:path";
import { MAX_LINE_BYTES } from "./log-files.ts";

export interface Line {
  readonly file: string;
  readonly number: number;
  readonly bytes: Buffer;
  /** Ends with a newline. */
  readonly complete: boolean;
}

/** The lines of some of the log's files, one after another. */
export async function* readLines(
  dir: string,
  files: readonly { readonly name: string }[],
): AsyncGenerator<Line, undefined> {
  for (const { name } of files) {
    let parts: Buffer[] = [];
    let partBytes = 0;
    let number = 1;
    for await (const chunk of fs.createReadStream(path.join(dir, name), { highWaterMark: 256 * 1024 })) {
      const bytes = chunk as Buffer;
      let start = 0;
      for (let newline = bytes.indexOf(0x0a); newline !== -1; newline = bytes.indexOf(0x0a, start)) {
        parts.push(bytes.subarray(start, newline));
        yield {
          file: name,
          number: number++,
          bytes: parts.length > 1 ? Buffer.concat(parts) : (parts[0] as Buffer),
          complete: true,
        };
        parts = [];
        partBytes = 0;
        start = newline + 1;
      }
      if (start === bytes.length) continue;
      parts.push(bytes.subarray(start));
      partBytes += bytes.length - start;
      if (partBytes > MAX_LINE_BYTES) break;
    }
    if (partBytes > 0) yield { file: name, number, bytes: Buffer.concat(parts), complete: false };
  }
}
