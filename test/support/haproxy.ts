import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { until } from "./until.ts";

/** Debian has it where an ordinary user's PATH does not lead. */
const HAPROXY = ["haproxy", "/usr/sbin/haproxy"].find((command) => {
  try {
    execFileSync(command, ["-v"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
});

/** Whether this machine has HAProxy; tests that need it say that they are skipped. */
export const hasHaproxy = HAPROXY !== undefined;

export interface TestHaproxy extends AsyncDisposable {
  readonly url: string;
}

/** @param url where it listens. @param probe a path on which a server behind it answers. */
export async function runHaproxy(text: string, url: string, probe: string): Promise<TestHaproxy> {
  const folder = temporaryFolder("haproxy");
  const file = path.join(folder, "haproxy.cfg");
  writeFileSync(file, text);
  const child: ChildProcess = spawn(HAPROXY as string, ["-db", "-f", file], { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk) => {
      said += chunk;
    });
  }
  await until(async () => {
    if (child.exitCode !== null) throw new Error(`HAProxy did not start: ${said}`);
    return await fetch(url + probe).then(
      ({ ok }) => ok,
      () => false,
    );
  });
  return {
    url,
    [Symbol.asyncDispose]: async () => {
      const exited = once(child, "exit");
      child.kill("SIGKILL");
      await exited;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
