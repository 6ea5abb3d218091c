import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { replaceBetween } from "../../scripts/written-part.ts";

const SECURITY_PAGE = fileURLToPath(new URL("../../docs/security.md", import.meta.url));

/** A table in Markdown; every column but the first is aligned to the right. */
export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map((_, column) => (column === 0 ? "---" : "---:"))), ...rows.map(line)].join("\n");
}

/** Puts `text` between `<!-- name: begin -->` and `<!-- name: end -->` of docs/security.md. */
export function writeSecurityPage(name: string, text: string): void {
  const page = readFileSync(SECURITY_PAGE, "utf8");
  const rewritten = replaceBetween(page, `<!-- ${name}: begin -->`, `<!-- ${name}: end -->`, `\n\n${text}\n\n`);
  writeFileSync(SECURITY_PAGE, rewritten);
}
