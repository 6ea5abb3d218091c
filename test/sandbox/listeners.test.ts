/** Who listens to an execution's output, and fails. */
import { expect, test } from "vitest";
import { runOn, startTestSandbox } from "../support/sandbox.ts";

test.each([
  ["at a line", "print('x')\nwhile True: pass"],
  ["at the beginning of a line, after its pause", "print('x', end='')\nwhile True: pass"],
  ["at something that is displayed", "display(1)\nwhile True: pass"],
  ["at the rest that comes with the result", "print('x', end='')"],
])("a listener that throws %s ends the execution's process, and nothing else", async (_when, code) => {
  const sandbox = await startTestSandbox();
  const events: object[] = [];
  const onOutput = (event: object) => {
    events.push(event);
    throw new Error("the listener's own");
  };
  const { result } = await runOn(sandbox, code, { stream: true, onOutput });
  expect(await sandbox.ended).toContain("its output cannot be passed on: the listener's own");
  expect(events).toHaveLength(1);
  expect(result.stdout).toBe(code.startsWith("display") ? "" : code.startsWith("print('x')") ? "x\n" : "x");
});
