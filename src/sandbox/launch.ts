import type { ChildProcess } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { type IsolationReport, wrapCommand } from "../isolation/detect.ts";
import { mainStackBytes } from "../isolation/main-stack.ts";
import { spawnWrapped } from "../isolation/wrap.ts";
import { denoBinary } from "../shared/deno-binary.ts";
import type { GuestOptions } from "../wire/messages.ts";
import { permissionFlags, v8Flags } from "./permissions.ts";

export const GUEST_DIR = fileURLToPath(new URL("../guest/", import.meta.url));
/** What host and guest share, and the guest therefore loads. */
export const SHARED_FILES = [
  "frames.ts",
  "messages.ts",
  "protocol-error.ts",
  "archive-format.ts",
  "image-format.ts",
  "import-rules.ts",
  "display-limits.ts",
].map((name) => fileURLToPath(new URL(`../wire/${name}`, import.meta.url)));
export const PYODIDE_DIR = path.dirname(createRequire(import.meta.url).resolve("pyodide/package.json"));

export interface LaunchOptions {
  readonly guest: GuestOptions;
  /** Most WebAssembly memory, MiB. */
  readonly memoryMb: number;
  /** Whether the process is to take less memory, and more time. */
  readonly isCompact: boolean;
  /** What the operating system puts around the process. */
  readonly isolation: IsolationReport;
  /** Deno's own cache folder; null: none. */
  readonly denoDir: string | null;
}

/** The command that starts a sandbox process: Deno with no permission but to read the named files until it is ready. */
export function sandboxCommand({
  guest,
  memoryMb,
  isCompact,
  stackBytes,
}: Pick<LaunchOptions, "guest" | "memoryMb" | "isCompact"> & { readonly stackBytes: number }): {
  command: string;
  args: string[];
  readable: string[];
} {
  const { baseImagePath, stdlibPath, environment } = guest;
  const files = [baseImagePath, stdlibPath, environment?.archivePath, environment?.imagePath].filter(
    (file) => file != null,
  );
  const readable = [GUEST_DIR, ...SHARED_FILES, PYODIDE_DIR, ...files];
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
    ...permissionFlags(readable, guest.mapMemory),
    `--v8-flags=${v8Flags(memoryMb, stackBytes, isCompact).join(",")}`,
    path.join(GUEST_DIR, "main.ts"),
    PYODIDE_DIR,
  ];
  return { command: denoBinary(), args, readable };
}

/** Starts the process with pipes and nothing of the server's environment; its clock is in UTC. Its end is the caller's to watch. */
export function launch(options: LaunchOptions): ChildProcess {
  const { command, args, readable } = sandboxCommand({
    ...options,
    stackBytes: mainStackBytes(options.isolation.wrapping?.facts.hardLimits.stack ?? null),
  });
  const { isolation, memoryMb, denoDir } = options;
  const readOnlyPaths = denoDir === null ? readable : [...readable, denoDir];
  const env: Record<string, string> = { TZ: "UTC", ...(denoDir !== null && { DENO_DIR: denoDir }) };
  const memoryBytes = memoryMb * 2 ** 20;
  return spawnWrapped(wrapCommand(isolation, { command, args, readOnlyPaths, env, memoryBytes }));
}
