import { test } from "vitest";

/** The tests of `test/sandbox/random-sequences.test.ts` on an environment with numpy in it. */
if (!process.env.PYODIDE_EXPRESS_WHEELS) {
  test.skip("PYODIDE_EXPRESS_WHEELS names no folder of wheels", () => {});
} else {
  process.env.TEST_PACKAGES = "numpy";
  await import("../sandbox/random-sequences.test.ts");
}
