/** `npm run docs:errors`: writes the table of docs/errors.md from `src/shared/errors.ts`. */
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { ERRORS, type ErrorCode, errorKind } from "../src/shared/errors.ts";

const PAGE = fileURLToPath(new URL("../docs/errors.md", import.meta.url));
const BEGIN = "<!-- errors: written by `npm run docs:errors` -->\n";
const END = "<!-- /errors -->";

/** Puts the tables where the page has its markers. @throws if the markers are not there. */
export function withErrorTable(page: string): string {
  const begin = page.indexOf(BEGIN);
  const end = page.indexOf(END);
  if (begin < 0 || end < begin) throw new Error("docs/errors.md has lost the markers of its tables");
  return page.slice(0, begin + BEGIN.length) + errorTables() + page.slice(end);
}

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

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await writeFile(PAGE, withErrorTable(await readFile(PAGE, "utf8")));
}
