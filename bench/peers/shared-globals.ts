/**
 * The usual way: Express and Pyodide in one process, one interpreter, one set of globals for everybody.
 *
 * It isolates nothing: whatever one request leaves behind, the next one finds; a loop stops the server; and user code can
 * reach the host through JavaScript. `runPython` is its fastest form, and nothing is checked or logged.
 */
import type { AddressInfo } from "node:net";
import express from "express";
import { loadPyodide } from "pyodide";

const pyodide = await loadPyodide();
let stdout = "";
pyodide.setStdout({
  batched: (line) => {
    stdout += `${line}\n`;
  },
});

const app = express();
app.use(express.json());
app.post("/api/execute", (request, response) => {
  stdout = "";
  try {
    const value = pyodide.runPython(request.body.code);
    response.json({ success: true, result: toJson(value), stdout });
  } catch (error) {
    response.json({ success: false, error: String(error), stdout });
  }
});
const server = app.listen(0, "127.0.0.1", () => {
  console.log(`Ready on http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});

function toJson(value: unknown): unknown {
  if (typeof value !== "object" || value === null || !("toJs" in value)) return value ?? null;
  const proxy = value as { toJs(options: object): unknown; destroy(): void };
  const copy = proxy.toJs({ dict_converter: Object.fromEntries });
  proxy.destroy();
  return copy;
}
