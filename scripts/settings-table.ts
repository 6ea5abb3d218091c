/** `npm run docs:settings`: writes the settings table of README.md from `src/shared/settings.ts`. */
import { SETTINGS } from "../src/shared/settings.ts";
import { rewriteIfRun, withPart } from "./written-part.ts";

/** Every setting as a row of a Markdown table. */
function settingsTable(): string {
  const cell = (text: string) => text.replaceAll("|", "\\|");
  const code = (text: string) => (text === "" ? "" : `\`${text}\``);
  const rows = Object.entries(SETTINGS).map(
    ([name, { fallback, meaning }]) => `| ${code(name)} | ${code(cell(fallback))} | ${cell(meaning)} |\n`,
  );
  return `| variable | default | meaning |\n| --- | --- | --- |\n${rows.join("")}`;
}

await rewriteIfRun(import.meta.url, "README.md", (readme) => withPart(readme, "settings", settingsTable()));
