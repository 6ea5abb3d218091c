/** `npm run docs:decisions`: writes the index of docs/decisions.md from its headings. A new one gets today's date; change a status by hand. */
import { rewriteIfRun } from "./written-part.ts";

const HEAD = "| decision | since | status |\n| --- | --- | --- |\n";
const ROW = /^\| \[(?<title>.+)\]\(#.+\) \| (?<since>.+) \| (?<status>.+) \|$/gm;

/** As GitHub makes an anchor of a heading. */
export function anchorOf(title: string): string {
  return title
    .toLowerCase()
    .replace(/[^\p{L}\p{N}_\- ]/gu, "")
    .replaceAll(" ", "-");
}

/** @param today for decisions that have no row yet, as 2026-01-31. @throws if the page has no index. */
function withDecisionIndex(page: string, today: string): string {
  const begin = page.indexOf(HEAD);
  if (begin < 0) throw new Error("docs/decisions.md has lost the head of its index");
  const end = page.indexOf("\n\n", begin) + 1;
  const rows = new Map(Array.from(page.matchAll(ROW), ({ groups }) => [groups?.title, groups]));
  const index = Array.from(page.matchAll(/^## (.+)$/gm), ([, title = ""]) => {
    const { since = today, status = "in force" } = rows.get(title) ?? {};
    return `| [${title}](#${anchorOf(title)}) | ${since} | ${status} |\n`;
  });
  return page.slice(0, begin) + HEAD + index.join("") + page.slice(end);
}

await rewriteIfRun(import.meta.url, "docs/decisions.md", (page) =>
  withDecisionIndex(page, new Date().toISOString().slice(0, 10)),
);
