import { spawn } from "node:child_process";
import { once } from "node:events";
import { until } from "./until.ts";

export interface TestProxy extends AsyncDisposable {
  readonly url: string;
}

export interface ProxyOptions {
  readonly command: readonly [program: string, ...parameters: string[]];
  /** Where it listens. */
  readonly url: string;
  /** A path on which a server behind it answers. */
  readonly probe: string;
  readonly endBy: NodeJS.Signals;
}

/** Runs nginx or HAProxy until the test ends it. */
export async function runProxy({ command, url, probe, endBy }: ProxyOptions): Promise<TestProxy> {
  const [program, ...parameters] = command;
  const child = spawn(program, parameters, { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk) => {
      said += chunk;
    });
  }
  await until(async () => {
    if (child.exitCode !== null) throw new Error(`${program} did not start: ${said}`);
    return await fetch(url + probe).then(
      ({ ok }) => ok,
      () => false,
    );
  });
  return {
    url,
    [Symbol.asyncDispose]: async () => {
      const exited = once(child, "exit");
      child.kill(endBy);
      await exited;
    },
  };
}
