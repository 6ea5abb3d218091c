import { execFileSync, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const RUNNER = fileURLToPath(new URL("../../src/guest/python", import.meta.url));
const SCRIPT = fileURLToPath(new URL("native-python.py", import.meta.url));
const PYTHON = "/usr/bin/python3";

/** Whether this machine's own Python has a module. */
export function hasNative(module: string): boolean {
  return spawnSync(PYTHON, ["-c", `import ${module}`]).status === 0;
}

/** Calls a function of `native-python.py`, in which this machine's Python runs the sandbox's own modules. */
export function native(call: string, argument: unknown): unknown {
  const input = JSON.stringify({ call, argument });
  const output = execFileSync(PYTHON, [SCRIPT, RUNNER], { input, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  return JSON.parse(output);
}
