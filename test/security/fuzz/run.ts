/**
 * `npm run test:fuzz -- 100000`: every property with so many inputs, then a table of how many and how long. Takes hours at
 * 100,000, on one core.
 *
 *   --write   put the table into docs/security.md
 *   FILE …    of these files alone (`test/security/fuzz/endpoints.test.ts`)
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { markdownTable, writeSecurityPage } from "../../support/document.ts";
import type { Figure } from "./property.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { write: { type: "boolean", default: false } },
});
const runs = positionals.find((text) => /^\d+$/.test(text)) ?? "1000";
const files = positionals.filter((text) => text !== runs);
const figuresFile = path.join(os.tmpdir(), `fuzz-figures-${process.pid}.jsonl`);
const vitest = fileURLToPath(new URL("vitest.mjs", import.meta.resolve("vitest/package.json")));
const child = spawn(
  process.execPath,
  // The nightly project has the same files, and a number of inputs of its own.
  [vitest, "run", "--project", "security", "--maxWorkers=1", ...(files.length > 0 ? files : ["test/security/fuzz"])],
  {
    stdio: "inherit",
    env: { ...process.env, FUZZ_RUNS: runs, FUZZ_FIGURES: figuresFile },
  },
);
const [status] = await once(child, "close");
const lines = existsSync(figuresFile) ? readFileSync(figuresFile, "utf8").trim().split("\n") : [];
rmSync(figuresFile, { force: true });
const figures = lines.map((line) => JSON.parse(line) as Figure);
const text = markdownTable(
  ["property that held", "inputs", "seconds"],
  figures.map(({ name, inputs, seconds }) => [name, inputs.toLocaleString("en"), seconds.toFixed(0)]),
);
console.log(`\n${text}`);
if (values.write) writeSecurityPage("fuzz", text);
process.exitCode = status ?? 1;
