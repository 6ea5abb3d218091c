/**
 * `npm run test:escapes`: every attack, then a table of how many were tried and how many succeeded, by layer.
 *
 *   --mutations  also take out each layer in turn, and run the attacks in Pyodide as it comes
 *   --write      put the table into docs/security.md
 *   --only TEXT  those whose name has it, as vitest's -t; with the figures of earlier runs for the rest
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { markdownTable, writeSecurityPage } from "../../support/document.ts";
import { SCORES_DIR, type Score } from "./scoreboard.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    mutations: { type: "boolean", default: false },
    write: { type: "boolean", default: false },
    only: { type: "string" },
  },
});
const COLUMNS = ["all", "Deno alone", "operating system alone", "none (control)"];
/** What rows begin with that come after all others. */
const KINDS = ["assumed broken", "mutation"];
/** The nightly project has the same files, and would try each attack a second time. */
const SECURITY = ["--project", "security"];
const scoresFile = path.join(SCORES_DIR, "escapes.jsonl");
const earlier = values.only === undefined ? [] : readScores();
rmSync(scoresFile, { force: true });
const only = values.only === undefined ? [] : ["-t", values.only];
const vitest = fileURLToPath(new URL("vitest.mjs", import.meta.resolve("vitest/package.json")));
const child = spawn(
  process.execPath,
  [vitest, "run", ...SECURITY, "test/security/escapes", "test/security/isolation", ...positionals, ...only],
  {
    stdio: "inherit",
    env: {
      ...process.env,
      ESCAPES_ALL: "1",
      ESCAPES_SCORES: scoresFile,
      ...(values.mutations ? { ESCAPES_MUTATIONS: "1" } : {}),
    },
  },
);
const [status] = await once(child, "close");
const scores = readScores();
const isOld = (old: Score) =>
  !scores.some(({ technique, layers }) => technique === old.technique && layers === old.layers);
scores.unshift(...earlier.filter(isOld));
writeFileSync(scoresFile, scores.map((score) => `${JSON.stringify(score)}\n`).join(""));
const text = table(scores);
console.log(`\n${text}`);
if (values.write) writeSecurityPage("attacks", text);
process.exitCode = status ?? 1;

function readScores(): Score[] {
  if (!existsSync(scoresFile)) return [];
  const lines = readFileSync(scoresFile, "utf8")
    .split("\n")
    .filter((line) => line !== "");
  return lines.map((line) => JSON.parse(line) as Score);
}

/** Techniques down, layers across: `succeeded / tried`. */
function table(scores: readonly Score[]): string {
  const sum = new Map<string, { tried: number; succeeded: number }>();
  for (const { technique, layers, tried, succeeded } of scores) {
    const key = JSON.stringify([technique, layers]);
    const before = sum.get(key) ?? { tried: 0, succeeded: 0 };
    sum.set(key, { tried: before.tried + tried, succeeded: before.succeeded + succeeded });
  }
  // Not in the order in which they came to their ends.
  const kind = (technique: string) => KINDS.findIndex((prefix) => technique.startsWith(prefix));
  const techniques = [...new Set(scores.map(({ technique }) => technique))].toSorted(
    (a, b) => kind(a) - kind(b) || a.localeCompare(b),
  );
  // Where nothing is to succeed comes first, whichever part was run last.
  const place = (layers: string) => COLUMNS.indexOf(layers) >>> 0;
  const columns = [...new Set(scores.map(({ layers }) => layers))].toSorted((a, b) => place(a) - place(b));
  const cell = (technique: string, layers: string) => {
    const found = sum.get(JSON.stringify([technique, layers]));
    return found ? `${found.succeeded} / ${found.tried}` : "";
  };
  const total = (layers: string) => {
    const rows = [...sum].filter(([key]) => JSON.parse(key)[1] === layers).map(([, row]) => row);
    const add = (name: "tried" | "succeeded") => rows.reduce((all, row) => all + row[name], 0);
    return `**${add("succeeded")} / ${add("tried")}**`;
  };
  return markdownTable(
    ["succeeded / tried", ...columns],
    [
      ...techniques.map((technique) => [technique, ...columns.map((layers) => cell(technique, layers))]),
      ["**total**", ...columns.map(total)],
    ],
  );
}
