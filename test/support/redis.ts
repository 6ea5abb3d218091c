import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { createServer } from "node:net";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { isInstalled } from "./installed.ts";

export const hasRedis = isInstalled("redis-server", "--version");

export interface TestRedis {
  readonly url: string;
  signal(signal: "SIGSTOP" | "SIGCONT"): void;
  /** As if the machine had gone. */
  kill(): Promise<void>;
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** A real Redis on a free loopback port that keeps what it was told when it is killed. */
export async function startRedis(): Promise<TestRedis> {
  const folder = temporaryFolder("redis");
  const port = await freePort();
  let child: ChildProcess;
  const start = async () => {
    const settings = ["--port", String(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""];
    child = spawn("redis-server", [...settings, "--appendonly", "yes", "--appendfsync", "always"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let output = "";
    for await (const chunk of child.stdout ?? []) {
      output += chunk;
      if (output.includes("Ready to accept connections")) break;
    }
    child.stdout?.resume();
  };
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  };
  await start();
  return {
    url: `redis://127.0.0.1:${port}`,
    signal: (signal) => child.kill(signal),
    start,
    kill,
    stop: async () => {
      await kill();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return typeof address === "object" && address ? address.port : 0;
}
