import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { ROOT } from "./support/imports.ts";

const page = readFileSync(path.join(ROOT, "docs/decisions.md"), "utf8");
const rows = Array.from(
  page.matchAll(/^\| \[(.+)\]\(#(.+)\) \| (.+) \| (.+) \|$/gm),
  ([, title, anchor, since, status]) => ({ title, anchor, since, status }),
);

/** As GitHub makes an anchor of a heading. */
const anchorOf = (title: string) =>
  title
    .toLowerCase()
    .replace(/[^\p{L}\p{N}_\- ]/gu, "")
    .replaceAll(" ", "-");

test("the index of docs/decisions.md has each decision once, in order, with a link that works", () => {
  const titles = Array.from(page.matchAll(/^## (.+)$/gm), ([, title]) => title as string);
  expect(titles.length).toBeGreaterThan(50);
  expect(rows.map(({ title }) => title)).toEqual(titles);
  expect(rows.map(({ anchor }) => anchor)).toEqual(titles.map(anchorOf));
});

test("each decision has a date and a status", () => {
  for (const { title, since, status } of rows) {
    expect([title, since]).toEqual([title, expect.stringMatching(/^\d{4}-\d\d-\d\d$/)]);
    const replacing = /^replaced by (.+)$/.exec(status ?? "")?.[1];
    if (status !== "in force") expect(rows.map((row) => row.title)).toContain(replacing);
  }
});
