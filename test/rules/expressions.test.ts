import { readFileSync } from "node:fs";
import path from "node:path";
import { isSafe } from "redos-detector";
import { parseSync, Visitor } from "rolldown/utils";
import { expect, test } from "vitest";
import { SRC, sources } from "../support/imports.ts";

/** What reads texts of the operator's and of the host alone. */
const OF_THE_OPERATOR = ["isolation/", "mcp-servers/server-file.ts", "shared/redis-url.ts"];

/** Those that the analyser is wrong of, or whose text no client makes longer: `file: /expression/` → why. */
const KNOWN: Readonly<Record<string, string>> = {
  "environments/images.ts: /\\.image(?:\\.json)?\\.(.+)\\.(\\d+)\\.tmp$/": "names of files of the cache folder",
  "packages/archive.ts: /\\.so(\\.\\d+)*$/": "no second `.so` is inside of what follows the first",
  "packages/package-set.ts: /^site-packages\\/([A-Za-z][A-Za-z0-9_]*)(?:\\.py|(?:\\.[\\w-]+)*\\.so|\\/(?:.+\\/)?[^/]+\\.(?:py|so))$/":
    "a slash ends each way that a component is tried",
  "packages/pyc.ts: /__pycache__\\/([^/]+)\\.[^./]+\\.pyc$/": "a slash ends each way that a component is tried",
  "protocols/mcp/media.ts: /data:([a-z]{1,32}\\/[\\w.+-]{1,64})((?:;[\\w.=-]{1,64}){0,8});base64,([A-Za-z0-9+/]*={0,2})/gi":
    "all before the data is bounded, and what follows it matches whatever is there",
  "protocols/mcp/media.ts: /<\\/?(?:audio|video|source|img)\\b[^<>]*>/gi":
    "what one match takes holds no place where another begins",
};

interface Expression {
  readonly raw: string;
  readonly pattern: string;
  readonly flags: string;
}

/** Regular expressions of a source file. */
function expressionsOf(file: string): readonly Expression[] {
  const { program, errors } = parseSync(file, readFileSync(path.join(SRC, file), "utf8"));
  if (errors.length > 0) throw new Error(`${file}: ${errors[0]?.message}`);
  const found: Expression[] = [];
  new Visitor({
    Literal(node) {
      if ("regex" in node) found.push({ raw: String(node.raw), ...node.regex });
    },
  }).visit(program);
  return found;
}

/** Whether the steps of a match are bounded by the length of its text. */
function isLinear({ pattern, flags }: Omit<Expression, "raw">): boolean {
  // The analyser knows neither names of groups nor where a sticky expression begins; `i` and `u` it knows one at a time.
  const unnamed = pattern.replace(/\(\?<[A-Za-z]+>/g, "(");
  const known = flags.replaceAll(/[dgy]/g, "").replace(/^(?=.*i)(.*)u/, "$1");
  return isSafe(new RegExp(flags.includes("y") ? `^(?:${unnamed})` : unnamed, known), {
    maxSteps: 20_000,
    timeout: Number.POSITIVE_INFINITY,
  }).safe;
}

test("the analyser finds what takes quadratic time", () => {
  expect(isLinear({ pattern: "^[A-Za-z0-9+/\\s]*={0,2}\\s*$", flags: "" })).toBe(false);
  expect(isLinear({ pattern: "=+$", flags: "" })).toBe(false);
  expect(isLinear({ pattern: "a+b", flags: "g" })).toBe(false);
  expect(isLinear({ pattern: "^(?<name>\\s*)x\\s*$", flags: "iu" })).toBe(true);
});

test("no regular expression of the server takes more than linear time for a client's text", () => {
  const all = sources.flatMap((file) => expressionsOf(file).map((expression) => ({ file, ...expression })));
  expect(all.length).toBeGreaterThan(200);
  const slow = all
    .filter(({ file }) => !OF_THE_OPERATOR.some((place) => file.startsWith(place)))
    .filter((expression) => !isLinear(expression))
    .map(({ file, raw }) => `${file}: ${raw}`);
  expect(slow.filter((name) => KNOWN[name] === undefined)).toEqual([]);
  expect(Object.keys(KNOWN).filter((name) => !slow.includes(name))).toEqual([]);
});
