import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { ROOT } from "../support/imports.ts";

/** Where clients are waited for, for hours if they say so. */
const FOLDERS = ["src/tools", "src/http/websocket"];
/** Waited for by the stop itself. */
const OF_THE_STOP = ["src/http/websocket/channels.ts: FLUSH_MS"];

/** Each timer that is set, and whether the process ends without it. */
function timersIn(source: string): { readonly call: string; readonly isUnref: boolean }[] {
  return Array.from(source.matchAll(/\bset(?:Timeout|Interval)\(/g), ({ index, 0: start }) => {
    let depth = 1;
    let end = index + start.length;
    for (; depth > 0 && end < source.length; end++) {
      if (source[end] === "(") depth++;
      if (source[end] === ")") depth--;
    }
    return { call: source.slice(index, end), isUnref: /^\s*\.unref\(\)/.test(source.slice(end)) };
  });
}

test("no timer of what waits for clients keeps a stopped server alive", () => {
  const files = FOLDERS.flatMap((folder) =>
    readdirSync(path.join(ROOT, folder)).map((name) => `${folder}/${name}`),
  ).filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts"));
  const timers = files.flatMap((file) =>
    timersIn(readFileSync(path.join(ROOT, file), "utf8")).map((timer) => ({ file, ...timer })),
  );
  expect(timers.length).toBeGreaterThan(8);
  const kept = timers.filter(({ isUnref }) => !isUnref);
  expect(kept.map(({ file, call }) => `${file}: ${call.match(/[A-Z]+_MS/)?.[0]}`)).toEqual(OF_THE_STOP);
});
