/**
 * What servers did that keep no interpreter: Express that starts Deno for each request, which loads Pyodide and runs the code.
 *
 * The interpreter is pristine, and contained by Deno's permissions. What Deno compiles is cached, as it is after the first request.
 */
import { execFile } from "node:child_process";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { promisify } from "node:util";
import express from "express";
import { PYODIDE_DIR } from "../../src/sandbox/launch.ts";
import { denoBinary } from "../../src/shared/deno-binary.ts";

const TIMEOUT_MS = 60_000;
const run = promisify(execFile);
const PROGRAM = `
import { loadPyodide } from ${JSON.stringify(`file://${path.join(PYODIDE_DIR, "pyodide.mjs")}`)};
const pyodide = await loadPyodide({ indexURL: ${JSON.stringify(PYODIDE_DIR)} });
let stdout = "";
pyodide.setStdout({ batched: (line) => { stdout += line + "\\n"; } });
pyodide.runPython(Deno.args[0]);
console.log(JSON.stringify(stdout));
Deno.exit(0);
`;
const file = path.join(process.env.DATA_DIR ?? ".", "deno-peer.mjs");
await (await import("node:fs/promises")).writeFile(file, PROGRAM);

const app = express();
app.use(express.json());
app.post("/api/execute", async (request, response) => {
  // What no client waits for would take processor time from whichever server is measured next.
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  try {
    const args = ["run", "--no-prompt", `--allow-read=${PYODIDE_DIR}`, "--allow-env", "--no-config", "--no-lock", file];
    const { stdout } = await run(denoBinary(), [...args, request.body.code], {
      timeout: TIMEOUT_MS,
      signal: gone.signal,
    });
    response.json({ success: true, stdout: JSON.parse(stdout) });
  } catch (error) {
    response.status(500).json({ success: false, error: String(error) });
  }
});
const server = app.listen(0, "127.0.0.1", () => {
  console.log(`Ready on http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
