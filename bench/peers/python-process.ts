/**
 * The simple way to a fresh interpreter: Express that starts `python3` for each request.
 *
 * The interpreter is pristine, but nothing contains it: the code runs on the host, with the server's rights.
 */
import { execFile } from "node:child_process";
import type { AddressInfo } from "node:net";
import { promisify } from "node:util";
import express from "express";
import { PYTHON } from "../settings.ts";

const TIMEOUT_MS = 30_000;
const run = promisify(execFile);

const app = express();
app.use(express.json());
app.post("/api/execute", async (request, response) => {
  // What no client waits for would take processor time from whichever server is measured next.
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  try {
    const { stdout, stderr } = await run(PYTHON, ["-I", "-c", request.body.code], {
      timeout: TIMEOUT_MS,
      signal: gone.signal,
    });
    response.json({ success: true, stdout, stderr });
  } catch (error) {
    response.json({ success: false, error: String(error) });
  }
});
const server = app.listen(0, "127.0.0.1", () => {
  console.log(`Ready on http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
