/**
 * Pyodide as it comes, in Node, with nothing around it: what the attacks do where nobody stops them.
 *
 * Reads attacks as lines of JSON `{code, context}` and prints a line `{"text": what it said}` for each. May end at any of them.
 */
import { createInterface } from "node:readline";
import { loadPyodide } from "pyodide";

const pyodide = await loadPyodide({ stdout: () => {}, stderr: () => {} });
process.stdout.write('{"ready":true}\n');
for await (const line of createInterface({ input: process.stdin })) {
  const { code, context } = JSON.parse(line) as { code: string; context: Record<string, unknown> };
  let said = "";
  const note = (text: string) => {
    said = (said + text).slice(0, 1_000_000);
  };
  pyodide.setStdout({ batched: note });
  pyodide.setStderr({ batched: note });
  try {
    const globals = pyodide.toPy(context);
    globals.set("display", print);
    note(String(await pyodide.runPythonAsync(code, { globals })));
  } catch (error) {
    note(String(error));
  }
  process.stdout.write(`${JSON.stringify({ text: said })}\n`);
}

function print(value: unknown): void {
  console.error(String(value));
}
