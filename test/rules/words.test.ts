import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { ROOT } from "../support/imports.ts";

/** Words that leave open who or what is meant: name the principal, the caller, the request, the server, the file instead. */
const VAGUE =
  /(?<!`)\b(?:some(?:body|one)(?:'s)?|nobody(?:'s)?|whoever|whosoever|jobOfNobody|what there is|(?:can|cannot|could|could not|not|to) be had|be had back)\b/gi;
/** The server whose contract `http/` keeps: introduced once, in the glossary, as the compatibility contract. */
const ORIGINAL = /\bthe original\b/gi;

const files = ["src", "docs"]
  .flatMap((folder) =>
    readdirSync(path.join(ROOT, folder), { recursive: true, encoding: "utf8" }).map((file) => path.join(folder, file)),
  )
  .filter((file) => /\.(?:ts|py|md|wat|lua)$/.test(file))
  .concat("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md");

function found(words: RegExp): string[] {
  return files.flatMap((file) =>
    readFileSync(path.join(ROOT, file), "utf8")
      .split("\n")
      .flatMap((line, index) =>
        Array.from(line.matchAll(words), ([word]) => `${file}:${index + 1}: ${word}: ${line.trim().slice(0, 120)}`),
      ),
  );
}

test("src, docs and README name who and what is meant", () => {
  expect(files.length).toBeGreaterThan(200);
  expect(found(VAGUE)).toEqual([]);
});

test("the compatibility contract has one name, and its origin is told in the glossary alone", () => {
  expect(found(ORIGINAL).filter((line) => !line.includes("compatibility contract"))).toEqual([]);
});
