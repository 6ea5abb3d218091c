import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { GUEST_DIR, PYODIDE_DIR, SHARED_FILES } from "../sandbox/launch.ts";
import { denoVersion } from "../shared/deno-binary.ts";
import { PROTOCOL_VERSION } from "../wire/frames.ts";

/** A file of the guest's that is part of what runs: no test, and not what `doctor` runs in a sandbox's place. */
function isOfRuntime(name: string): boolean {
  return /\.(ts|py)$/.test(name) && !/\.test\.ts$/.test(name);
}

/** SHA-256 over {@link runtimeInputs}. */
export async function hashRuntime(): Promise<string> {
  const hash = createHash("sha256");
  for (const [name, content] of await runtimeInputs()) hash.update(`${name}\0${content.length}\0`).update(content);
  return hash.digest("hex");
}

/** All that the bytes of an image, or whether it fits, depend on: name → content. Where it is installed is not part of it. */
export async function runtimeInputs(): Promise<(readonly [name: string, content: string | Uint8Array])[]> {
  const pyodideFiles = ["package.json", "pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip"];
  const guestFiles = (await readdir(GUEST_DIR, { recursive: true })).filter(isOfRuntime).sort();
  const files = [
    ...pyodideFiles.map((name) => [name, path.join(PYODIDE_DIR, name)] as const),
    ...guestFiles.map((name) => [name, path.join(GUEST_DIR, name)] as const),
    ...SHARED_FILES.map((file) => [path.basename(file), file] as const),
  ];
  return [
    ...(await Promise.all(files.map(async ([name, file]) => [name, await readFile(file)] as const))),
    ["deno", denoVersion()],
    ["protocol", String(PROTOCOL_VERSION)],
  ];
}
