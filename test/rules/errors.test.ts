import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { ClientError, ERRORS, type ErrorCode, errorKind } from "../../src/shared/errors.ts";
import { ROOT, SRC, sources } from "../support/imports.ts";

const codes = Object.keys(ERRORS) as ErrorCode[];
const texts = new Map(sources.map((file) => [file, readFileSync(path.join(SRC, file), "utf8")]));

test("docs/errors.md has every code", () => {
  const page = readFileSync(path.join(ROOT, "docs/errors.md"), "utf8");
  for (const code of codes) expect(page).toContain(`| \`${code}\` |`);
});

test("every code has a text or a meaning, and a source that uses it", () => {
  const used = Array.from(texts, ([file, text]) => (file === "shared/errors.ts" ? "" : text)).join("\n");
  for (const code of codes) {
    const { status, text, means } = errorKind(code);
    expect(
      [text, means].filter((said) => said !== undefined && said !== ""),
      code,
    ).toHaveLength(1);
    expect(status >= 400 && status <= 599, code).toBe(true);
    expect(used.includes(`"${code}"`), code).toBe(true);
  }
});

test("an error has the status, the text and the time of its code", () => {
  expect(new ClientError("queue_full")).toMatchObject({
    status: 429,
    message: errorKind("queue_full").text,
    retryAfterS: 1,
  });
  expect(new ClientError("not_found", "File a not found")).toMatchObject({ status: 404, message: "File a not found" });
  expect(new ClientError("rate_limited", { retryAfterS: 7 }).retryAfterS).toBe(7);
});

test("only http/ knows of statuses", () => {
  const reads = Array.from(texts).filter(
    ([file, text]) =>
      !file.startsWith("http/") && /ClientError\(\s*\d|\b(?:error|failure|notKept|cause)\??\.status\b/.test(text),
  );
  expect(reads.map(([file]) => file)).toEqual([]);
});
