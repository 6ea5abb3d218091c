import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { hasNative } from "./native-python.ts";
import { freePort } from "./redis.ts";

/** Debian's `python3-jupyter-server`, with `python3-ipykernel` and `python3-nbclient`. */
export const hasJupyterServer = hasNative("ipykernel, nbclient, jupyter_server.gateway.managers");

/** Debian's `jupyter-notebook`, the program of which `--gateway-url` was one of the first. */
export const hasNotebook = hasNative("notebook.gateway.managers");

/** Which program: each names its settings its own way. */
export type JupyterProgram = "jupyter_server" | "notebook";
const APP: Readonly<Record<JupyterProgram, (token: string, folder: string) => readonly string[]>> = {
  jupyter_server: (token, folder) => [`--ServerApp.token=${token}`, `--ServerApp.root_dir=${folder}`],
  notebook: (token, folder) => [`--NotebookApp.token=${token}`, `--NotebookApp.notebook_dir=${folder}`],
};

export interface JupyterServer {
  readonly url: string;
  readonly token: string;
  /** Where its notebooks are. */
  readonly folder: string;
  stop(): Promise<void>;
}

/** A real Jupyter server on a free port of the loopback interface. @param parameters besides those. */
export async function startJupyterServer(
  parameters: readonly string[] = [],
  env: Record<string, string> = {},
  program: JupyterProgram = "jupyter_server",
): Promise<JupyterServer> {
  const token = "a-token-of-debians-jupyter-server";
  const port = await freePort();
  const folder = temporaryFolder("jupyter-server");
  const child = spawn(
    "/usr/bin/python3",
    [
      "-m",
      program,
      "--no-browser",
      "--allow-root",
      "--ip=127.0.0.1",
      `--port=${port}`,
      ...APP[program](token, folder),
      ...parameters,
    ],
    // What it writes of its own is in the folder as well.
    { cwd: folder, env: { ...process.env, HOME: folder, ...env }, stdio: ["ignore", "ignore", "pipe"] },
  );
  await untilItListens(child);
  return {
    url: `http://127.0.0.1:${port}`,
    token,
    folder,
    stop: async () => {
      if (child.exitCode !== null) return;
      const closed = once(child, "close");
      child.kill("SIGTERM");
      await closed;
    },
  };
}

async function untilItListens(child: ChildProcess): Promise<void> {
  let said = "";
  for await (const chunk of child.stderr ?? []) {
    said += chunk;
    if (said.includes("/?token=") || said.includes("Use Control-C")) {
      child.stderr?.resume();
      return;
    }
  }
  throw new Error(`jupyter_server has ended: ${said}`);
}
