/**
 * `npm run check`: what can be said of a change without running it, in seconds. Types, lint and the rules that documents
 * state, at the same time. Exit code 1 if any of them fails; each prints what it found.
 */
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";
import { text } from "node:stream/consumers";

const ROOT = path.resolve(import.meta.dirname, "..");
const require = createRequire(import.meta.url);

/** A program of an installed package, by its name in `bin`. */
function program(packageName: string, name = packageName): string {
  const manifest = require.resolve(`${packageName}/package.json`);
  const { bin } = require(manifest) as { bin: string | Record<string, string> };
  return path.join(path.dirname(manifest), typeof bin === "string" ? bin : (bin[name] as string));
}

const tsc = program("typescript", "tsc");
const CHECKS: Readonly<Record<string, readonly string[]>> = {
  "types: server, tests": [tsc, "-p", "tsconfig.json"],
  "types: guest": [tsc, "-p", "tsconfig.guest.json"],
  "types: pages": [tsc, "-p", "tsconfig.web.json"],
  lint: [program("@biomejs/biome", "biome"), "ci", `--colors=${process.stdout.isTTY ? "force" : "off"}`, "."],
  "rewind.wat": ["scripts/assemble-wat.ts", "--check"],
  rules: [program("vitest"), "run", "--project", "rules"],
};

const startedAt = performance.now();
const results = await Promise.all(
  Object.entries(CHECKS).map(async ([name, args]) => {
    const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
    const ended = new Promise<number | null>((resolve, reject) => child.on("error", reject).on("close", resolve));
    const [code, stdout, stderr] = await Promise.all([ended, text(child.stdout), text(child.stderr)]);
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
    console.log(`${code === 0 ? "ok    " : "FAILED"} ${name} (${seconds} s)`);
    if (code !== 0) console.log(`${stdout}${stderr}`);
    return code === 0;
  }),
);
process.exitCode = results.every(Boolean) ? 0 : 1;
