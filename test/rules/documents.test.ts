import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { WRITTEN_PARTS } from "../../scripts/written-part.ts";
import { ROOT } from "../support/imports.ts";

const read = (name: string) => readFileSync(path.join(ROOT, name), "utf8");
const { scripts } = JSON.parse(read("package.json")) as { scripts: Readonly<Record<string, string>> };
const DOCUMENTS = [
  ...readdirSync(ROOT).filter((name) => name.endsWith(".md")),
  ...readdirSync(path.join(ROOT, "docs")).map((name) => `docs/${name}`),
];
const WRITERS = Object.keys(scripts).filter((name) => name.startsWith("docs:"));

test.for(WRITERS)("what `npm run %s` writes is up to date; if it is not, run it", async (writer) => {
  const [, file = ""] = /^node (\S+)$/.exec(scripts[writer] ?? "") ?? [];
  const { href } = pathToFileURL(path.join(ROOT, file));
  await import(href);
  const part = WRITTEN_PARTS.get(href);
  const text = read(part?.name ?? "");
  expect(part?.rewrite(text)).toBe(text);
});

test("every part that is marked as written has what writes it", () => {
  const marks = DOCUMENTS.flatMap((name) => [...read(name).matchAll(/^<!-- \w+: written by `npm run (.+)` -->$/gm)]);
  expect(marks.length).toBeGreaterThan(3);
  for (const [, writer] of marks) expect(WRITERS).toContain(writer);
});

test("README links every document", () => {
  const linked = new Set(Array.from(read("README.md").matchAll(/\]\(([^)#]+)/g), ([, target]) => target));
  expect(DOCUMENTS.filter((name) => name !== "README.md" && !linked.has(name))).toEqual([]);
});

test("no command of a document takes the Node that the machine happens to have", () => {
  // `npm run` and `npx` find the one that npm installed.
  const plain = /(?<!npx )\bnode (?:--[\w-]+ )*(?:bin|src|bench|scripts|test)\//g;
  expect(DOCUMENTS.flatMap((name) => Array.from(read(name).matchAll(plain), ([found]) => `${name}: ${found}`))).toEqual(
    [],
  );
});
