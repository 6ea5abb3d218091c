import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

/** Puts `text` between two markers of a document. @throws if they are not there. */
export function replaceBetween(document: string, beginMarker: string, endMarker: string, text: string): string {
  const begin = document.indexOf(beginMarker);
  const end = document.indexOf(endMarker, begin);
  if (begin < 0 || end < 0) throw new Error(`the document has lost its ${beginMarker.trim()} or ${endMarker}`);
  return document.slice(0, begin + beginMarker.length) + text + document.slice(end);
}

/** Puts `text` into the part that `npm run docs:<name>` writes. @throws if its markers are not there. */
export function withPart(document: string, name: string, text: string): string {
  const begin = `<!-- ${name}: written by \`npm run docs:${name}\` -->\n`;
  return replaceBetween(document, begin, `<!-- /${name} -->`, text);
}

interface WrittenPart {
  /** The document, as `docs/errors.md`. */
  readonly name: string;
  readonly rewrite: (text: string) => string;
}

/** What each script that was imported writes, by the script's URL: `npm run check` holds the documents against it. */
export const WRITTEN_PARTS = new Map<string, WrittenPart>();

/** Rewrites a document if the script with this URL is the program that runs. */
export async function rewriteIfRun(script: string, name: string, rewrite: (text: string) => string): Promise<void> {
  WRITTEN_PARTS.set(script, { name, rewrite });
  if (process.argv[1] !== fileURLToPath(script)) return;
  const file = fileURLToPath(new URL(`../${name}`, import.meta.url));
  await writeFile(file, rewrite(await readFile(file, "utf8")));
}
