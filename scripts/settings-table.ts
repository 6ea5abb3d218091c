/** `npm run docs:settings`: writes the settings table of README.md from `src/shared/settings.ts`. */
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { SETTINGS } from "../src/shared/settings.ts";

const README = fileURLToPath(new URL("../README.md", import.meta.url));
const BEGIN = "<!-- settings: written by `npm run docs:settings` -->\n";
const END = "<!-- /settings -->";

/** Every setting as a row of a Markdown table. */
export function settingsTable(): string {
  const cell = (text: string) => text.replaceAll("|", "\\|");
  const code = (text: string) => (text === "" ? "" : `\`${text}\``);
  const rows = Object.entries(SETTINGS).map(
    ([name, { fallback, meaning }]) => `| ${code(name)} | ${code(cell(fallback))} | ${cell(meaning)} |\n`,
  );
  return `| variable | default | meaning |\n| --- | --- | --- |\n${rows.join("")}`;
}

/**
 * Puts the table where README.md has its markers.
 *
 * @throws if the markers are not there.
 */
export function withSettingsTable(readme: string): string {
  const begin = readme.indexOf(BEGIN);
  const end = readme.indexOf(END);
  if (begin < 0 || end < begin) throw new Error("README.md has lost the markers of its settings table");
  return readme.slice(0, begin + BEGIN.length) + settingsTable() + readme.slice(end);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await writeFile(README, withSettingsTable(await readFile(README, "utf8")));
}
