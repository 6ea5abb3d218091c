/** `npm run docs:errors`: writes the table of docs/errors.md from `src/shared/errors.ts`. */
import { ERRORS, type ErrorCode, errorKind } from "../src/shared/errors.ts";
import { rewriteIfRun, withPart } from "./written-part.ts";

function errorTables(): string {
  const codes = (Object.keys(ERRORS) as ErrorCode[]).sort();
  const ofHttp = codes.filter((code) => !errorKind(code).inPython).map(row);
  const ofPython = codes.filter((code) => errorKind(code).inPython).map((code) => `| \`${code}\` | ${said(code)} |\n`);
  return (
    `| code | status | \`error\`, or what it means | again |\n| --- | --- | --- | --- |\n${ofHttp.join("")}\n` +
    "User code meets these as exceptions, of what it asks of the server while it runs; no reply has them:\n\n" +
    `| code | text, or what it means |\n| --- | --- |\n${ofPython.join("")}`
  );
}

function row(code: ErrorCode): string {
  const { status, retry } = errorKind(code);
  const again = retry === false ? "" : retry === "later" ? "later" : `after ${retry} s`;
  return `| \`${code}\` | ${status} | ${said(code)} | ${again} |\n`;
}

function said(code: ErrorCode): string {
  const { text, means } = errorKind(code);
  return text === undefined ? (means ?? "") : `\`${text}\``;
}

await rewriteIfRun(import.meta.url, "docs/errors.md", (page) => withPart(page, "errors", errorTables()));
