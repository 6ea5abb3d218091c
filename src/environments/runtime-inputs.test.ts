import path from "node:path";
import { expect, test } from "vitest";
import { PYODIDE_DIR } from "../sandbox/launch.ts";
import { denoBinary, denoVersion } from "../shared/deno-binary.ts";
import { runtimeInputs } from "./runtime-inputs.ts";

test("images depend on Deno's version, and not on where anything is installed", async () => {
  const inputs = new Map(await runtimeInputs());
  expect(inputs.get("deno")).toBe(denoVersion());
  expect(denoVersion()).toMatch(/^\d+\.\d+\.\d+/);
  const places = [path.dirname(denoBinary()), PYODIDE_DIR, process.cwd()];
  for (const [name, content] of inputs) {
    expect(path.isAbsolute(name)).toBe(false);
    for (const place of places) expect(Buffer.from(content).includes(place)).toBe(false);
  }
});

test("images depend on all that runs in a sandbox, and on no test", async () => {
  const names = (await runtimeInputs()).map(([name]) => name);
  expect(names).toEqual(
    expect.arrayContaining(["main.ts", "python/sandbox_runner/execution.py", "frames.ts", "pyodide.asm.wasm"]),
  );
  expect(names.filter((name) => name.endsWith(".test.ts"))).toEqual([]);
});
