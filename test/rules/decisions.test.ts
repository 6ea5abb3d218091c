import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { withDecisionIndex } from "../../scripts/decision-index.ts";
import { ROOT } from "../support/imports.ts";

const page = readFileSync(path.join(ROOT, "docs/decisions.md"), "utf8");
const rows = Array.from(
  page.matchAll(/^\| \[(.+)\]\(#(.+)\) \| (.+) \| (.+) \|$/gm),
  ([, title, anchor, since, status]) => ({ title, anchor, since, status }),
);

test("the index of docs/decisions.md has each decision once, in order; if it has not: npm run docs:decisions", () => {
  expect(rows.length).toBeGreaterThan(50);
  expect(page).toBe(withDecisionIndex(page, "2026-01-01"));
});

test("each decision has a date and a status", () => {
  for (const { title, since, status } of rows) {
    expect([title, since]).toEqual([title, expect.stringMatching(/^\d{4}-\d\d-\d\d$/)]);
    const replacing = /^replaced by (.+)$/.exec(status ?? "")?.[1];
    if (status !== "in force") expect(rows.map((row) => row.title)).toContain(replacing);
  }
});
