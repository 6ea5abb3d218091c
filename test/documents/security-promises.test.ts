import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";

const ROOT = path.resolve(import.meta.dirname, "../..");
const text = readFileSync(path.join(ROOT, "SECURITY.md"), "utf8");
/** What promises something; the other sections say what is not promised, or how things are done. */
const PROMISING = [
  "Who is trusted with what",
  "Layers",
  "Limits of one execution",
  "Limits of one client",
  "Tenants that are hostile to each other",
  "What a neighbour can tell",
];
const TEST = /`((?:src|test)\/[\w./-]+)`/g;

/** Rows of tables, items of lists and, where there are neither, paragraphs. */
function promisesOf(section: string): string[] {
  const body = (text.split(`\n## ${section}\n`)[1] ?? "").split("\n## ")[0] ?? "";
  const promised = body.split("\nNot promised")[0] as string;
  const rows = promised.split("\n").filter((line) => /^\| (?!who|what \||---)/.test(line));
  const items = promised.split(/\n(?=\d+\. |- )/).filter((part) => /^(\d+\. |- )/.test(part));
  const found = [...rows, ...items];
  return found.length > 0 ? found : [promised];
}

describe.each(PROMISING)("SECURITY.md, %s", (section) => {
  test.each(promisesOf(section).map((promise) => [promise.slice(0, 60), promise] as const))(
    "%s… names a test that is there",
    (_start, promise) => {
      const named = Array.from(promise.matchAll(TEST), ([, file]) => file as string).filter((file) =>
        /\.test\.ts$|^test\//.test(file),
      );
      expect(named).not.toEqual([]);
      for (const file of named) expect(existsSync(path.join(ROOT, file)), file).toBe(true);
    },
  );
});
