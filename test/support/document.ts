import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const SECURITY_PAGE = fileURLToPath(new URL("../../docs/security.md", import.meta.url));

/** A table in Markdown; every column but the first is aligned to the right. */
export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map((_, column) => (column === 0 ? "---" : "---:"))), ...rows.map(line)].join("\n");
}

/** Puts `text` between `<!-- name: begin -->` and `<!-- name: end -->` of docs/security.md. */
export function writeSecurityPage(name: string, text: string): void {
  const [begin, end] = [`<!-- ${name}: begin -->`, `<!-- ${name}: end -->`];
  const page = readFileSync(SECURITY_PAGE, "utf8");
  const [head, rest] = page.split(begin);
  const tail = rest?.split(end)[1];
  if (head === undefined || tail === undefined) throw new Error(`docs/security.md has no place for ${name}`);
  writeFileSync(SECURITY_PAGE, `${head}${begin}\n\n${text}\n\n${end}${tail}`);
}
