import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { SRC, sources } from "../support/imports.ts";

/** Where paths of clients come in. */
const FOLDERS = ["protocols/", "http/", "service/", "tools/", "sessions/", "workspaces/"];
const KNOWN: Readonly<Record<string, number>> = {
  "workspaces/paths.ts": 1, // resolvedPath itself
  "protocols/piston/piston.ts": 1, // after the same check
};

test("paths of clients are normalised where their length is known: each `..` copies all before it", () => {
  const found = sources
    .filter((file) => FOLDERS.some((folder) => file.startsWith(folder)))
    .map((file) => {
      const text = readFileSync(path.join(SRC, file), "utf8");
      return [file, text.match(/\bposix\.(?:normalize|resolve|join)\(/g)?.length ?? 0] as const;
    })
    .filter(([, count]) => count > 0);
  expect(Object.fromEntries(found)).toEqual(KNOWN);
});
