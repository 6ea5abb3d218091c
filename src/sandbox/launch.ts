import { type ChildProcess, spawn } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { denoBinary } from "./deno-binary.ts";
import type { GuestOptions } from "./protocol.ts";

export const GUEST_DIR = fileURLToPath(new URL("../guest/", import.meta.url));
export const PROTOCOL_FILE = fileURLToPath(new URL("./protocol.ts", import.meta.url));
export const PYODIDE_DIR = path.dirname(createRequire(import.meta.url).resolve("pyodide/package.json"));

const WASM_PAGES_PER_MB = 16;

export interface LaunchOptions {
  readonly guest: Omit<GuestOptions, "pyodideDir">;
  /** Most WebAssembly memory, MiB. */
  readonly memoryMb: number;
}

/** The command that starts a sandbox process: Deno with no permission but to read the named files until it is ready. */
export function sandboxCommand({ guest, memoryMb }: LaunchOptions): {
  command: string;
  args: string[];
  readable: string[];
} {
  const readable = [GUEST_DIR, PROTOCOL_FILE, PYODIDE_DIR, ...(guest.imagePath === null ? [] : [guest.imagePath])];
  const args = [
    "run",
    "--quiet",
    "--no-prompt",
    "--no-remote",
    "--no-npm",
    "--cached-only",
    "--no-config",
    "--no-lock",
    "--no-check",
    `--allow-read=${readable.join(",")}`,
    "--deny-write",
    "--deny-net",
    "--deny-env",
    "--deny-run",
    "--deny-ffi",
    "--deny-sys",
    "--deny-import",
    `--v8-flags=--disallow-code-generation-from-strings,--wasm-max-mem-pages=${memoryMb * WASM_PAGES_PER_MB}`,
    path.join(GUEST_DIR, "main.ts"),
  ];
  return { command: denoBinary(), args, readable };
}

/** Starts the process with pipes and an empty environment. Its end is the caller's to watch. */
export function launch(options: LaunchOptions): ChildProcess {
  const { command, args } = sandboxCommand(options);
  return spawn(command, args, { stdio: ["pipe", "pipe", "pipe"], env: {}, cwd: path.parse(command).root });
}
