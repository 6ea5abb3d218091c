/**
 * A stand-in for the server, in a process of its own: it can run as another user, and it can be killed.
 *
 * Argument: JSON, a {@link Scenario}. Prints one line of JSON, a {@link Outcome}; with mode `linger` it prints the pid of
 * the innermost process instead, and stays.
 */

import { once } from "node:events";
import { chmodSync, readdirSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { detectIsolation, wrapCommand } from "../../../src/isolation/detect.ts";
import type { IsolationLayer } from "../../../src/isolation/layers.ts";
import type { Identity, IsolationPlan } from "../../../src/isolation/plan.ts";
import { innermostProcess } from "../../../src/isolation/process-facts.ts";
import { spawnWrapped } from "../../../src/isolation/wrap.ts";
import { denoBinary } from "../../../src/shared/deno-binary.ts";
import { temporaryFolder } from "../../../src/shared/testing/temporary-folder.ts";

export interface Scenario {
  /** `strongest`: whatever the server would choose. null: no wrapper, to show that the attacks work. */
  readonly tool: IsolationPlan["tool"] | "strongest" | null;
  readonly identity?: Identity;
  /** Path of the compiled attacker.c; absent: attacker.js in Deno with every permission. */
  readonly native?: string;
  /** `linger`: try to outlive the wrapper. `compat`: make a 32-bit system call. Absent: the whole list of attacks. */
  readonly mode?: "linger" | "compat";
}

export interface Outcome {
  readonly tool: string;
  readonly layers: readonly IsolationLayer[];
  readonly rejected: readonly string[];
  /** true: succeeded; else why not. */
  readonly attacks: Readonly<Record<string, true | string>>;
  /** What the attacks did to the server, seen from the server. */
  readonly connections: number;
  readonly signals: number;
  readonly written: readonly string[];
  readonly stderr: string;
}

export const DENO_FLAGS = [
  "run",
  "--no-remote",
  "--no-npm",
  "--cached-only",
  "--no-config",
  "--no-lock",
  "--no-prompt",
];

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(JSON.parse(process.argv[2] ?? "{}"));

async function main(scenario: Scenario): Promise<void> {
  let connections = 0;
  let signals = 0;
  const signalled = new Promise<void>((resolve) => {
    process.on("SIGUSR2", () => {
      signals++;
      resolve();
    });
  });
  const listener = createServer((socket) => {
    connections++;
    // An attacker that ends without closing its connection resets it.
    socket.on("error", () => {});
    // Not before the request is there: closing with unread bytes resets the connection, and the answer is lost.
    socket.once("data", () => socket.end("HTTP/1.1 204 No Content\r\n\r\n"));
  });
  await once(listener.listen(0, "127.0.0.1"), "listening");
  const { port } = listener.address() as AddressInfo;
  const writable = temporaryFolder("isolation");
  const readOnly = temporaryFolder("isolation-visible");
  // Only the wrapper stands between the attacker and these folders.
  for (const folder of [writable, readOnly]) chmodSync(folder, 0o777);

  const report = await detectIsolation(
    { ISOLATION: scenario.tool === null ? "deno" : "auto", SANDBOX_MAX_AGE_MS: 3_600_000 },
    {
      consider: ({ tool, identity, seccomp }) =>
        scenario.tool === "strongest" ||
        (tool === scenario.tool && (scenario.identity ?? identity) === identity && seccomp === (tool === "bubblewrap")),
    },
  );
  const attacker = fileURLToPath(new URL("attacker.js", import.meta.url));
  const facts = { serverPid: process.pid, port, writable, readOnly };
  const child = spawnWrapped(
    wrapCommand(report, {
      command: scenario.native ?? denoBinary(),
      args: scenario.native
        ? [scenario.mode ?? String(process.pid), String(port), writable, readOnly]
        : [...DENO_FLAGS, "-A", attacker, JSON.stringify(facts)],
      readOnlyPaths: scenario.native ? [readOnly] : [attacker, readOnly],
      env: {},
      memoryBytes: 64 * 1024 * 1024,
    }),
  );
  let stderr = "";
  child.stderr.on("data", (chunk) => {
    stderr += chunk;
  });
  if (scenario.mode === "linger") {
    await once(child.stdout, "data");
    console.log(JSON.stringify({ wrapper: child.pid, inside: await innermostProcess(Number(child.pid)) }));
    return;
  }
  let attacks: Outcome["attacks"] = {};
  for await (const line of createInterface({ input: child.stdout })) attacks = JSON.parse(line);
  // Node notices a signal some time after the kernel has delivered it.
  if (attacks.signalServer === true) await signalled;
  const written = [...readdirSync(writable), ...readdirSync(readOnly)];
  for (const folder of [writable, readOnly]) rmSync(folder, { recursive: true });
  listener.close();
  const { tool, layers, rejected } = report;
  console.log(JSON.stringify({ tool, layers, rejected, attacks, connections, signals, written, stderr }));
}
