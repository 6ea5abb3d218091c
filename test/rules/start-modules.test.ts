import { execFileSync } from "node:child_process";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { SRC } from "../support/imports.ts";

/** Packages that a server loads where it needs them alone: each takes tens of milliseconds of every start. */
const LATER = ["ioredis", "@modelcontextprotocol/sdk", "undici"];

test("what few servers need is not loaded at each start", () => {
  const server = pathToFileURL(path.join(SRC, "compose/server.ts"));
  const program = `
    import { registerHooks } from "node:module";
    const packages = new Set();
    registerHooks({
      load: (url, context, next) => {
        packages.add(/node_modules\\/((?:@[^/]+\\/)?[^/]+)/.exec(url)?.[1]);
        return next(url, context);
      },
    });
    await import(${JSON.stringify(server.href)});
    console.log(JSON.stringify([...packages]));`;
  const loaded: (string | null)[] = JSON.parse(
    execFileSync(process.execPath, ["--input-type=module", "--eval", program], { encoding: "utf8" }),
  );
  expect(loaded).toContain("express");
  expect(loaded.filter((name) => name !== null && LATER.includes(name))).toEqual([]);
});
