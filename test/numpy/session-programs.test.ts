import { test } from "vitest";

/** The tests of `test/sessions/session-programs.test.ts` on an environment with numpy in it, and with arrays among the steps. */
if (!process.env.PYODIDE_EXPRESS_WHEELS) {
  test.skip("PYODIDE_EXPRESS_WHEELS names no folder of wheels", () => {});
} else {
  process.env.TEST_PACKAGES = "numpy";
  await import("../sessions/session-programs.test.ts");
}
