import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { ROOT } from "../support/imports.ts";

const page = readFileSync(path.join(ROOT, "docs/decisions.md"), "utf8");
const rows = Array.from(
  page.matchAll(/^\| \[(.+)\]\(#(.+)\) \| (.+) \| (.+) \|$/gm),
  ([, title, anchor, since, status]) => ({ title, anchor, since, status }),
);

test("each decision has a date and a status", () => {
  expect(rows.length).toBeGreaterThan(50);
  for (const { title, since, status } of rows) {
    expect([title, since]).toEqual([title, expect.stringMatching(/^\d{4}-\d\d-\d\d$/)]);
    const replacing = /^replaced by (.+)$/.exec(status ?? "")?.[1];
    if (status !== "in force") expect(rows.map((row) => row.title)).toContain(replacing);
  }
});
