/** `npm run docs:components`: writes the component drawing of docs/architecture.md from the imports in `src/`. */
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { componentDrawing } from "../test/support/imports.ts";

const PAGE = fileURLToPath(new URL("../docs/architecture.md", import.meta.url));
const BEGIN = "<!-- components: written by `npm run docs:components` -->\n";
const END = "<!-- /components -->";

/** @throws if the page has lost its markers. */
export function withComponentDrawing(page: string): string {
  const begin = page.indexOf(BEGIN);
  const end = page.indexOf(END);
  if (begin < 0 || end < begin) throw new Error("docs/architecture.md has lost the markers of its component drawing");
  return page.slice(0, begin + BEGIN.length) + componentDrawing() + page.slice(end);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await writeFile(PAGE, withComponentDrawing(await readFile(PAGE, "utf8")));
}
