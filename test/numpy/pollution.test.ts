import { test } from "vitest";

/** The tests of `test/security/pollution.test.ts` on an environment with numpy in it. */
if (!process.env.PYODIDE_EXPRESS_WHEELS) {
  test.skip("PYODIDE_EXPRESS_WHEELS names no folder of wheels", () => {});
} else {
  process.env.TEST_PACKAGES = "numpy";
  await import("../security/pollution.test.ts");
}
