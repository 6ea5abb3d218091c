import { pino } from "pino";
import { openEnvironments } from "../../src/compose/environments.ts";
import { bootOptions, openHost } from "../../src/compose/host.ts";
import { internalJob, type Job } from "../../src/sandbox/running-job.ts";
import { Sandbox, type SandboxOptions } from "../../src/sandbox/sandbox.ts";
import type { ExecuteMessage, GuestOptions, Program } from "../../src/wire/messages.ts";
import { testConfig } from "./config.ts";

/** How a process is to boot: with the standard library alone, unless something else is said. */
export function guestOptions(options: Partial<GuestOptions>): GuestOptions {
  return { ...bootOptions(testConfig(), { baseImagePath: null, stdlibPath: null, guest: null }), ...options };
}

/** One sandbox of the default environment, without a pool. */
export async function startTestSandbox(
  guest: Partial<GuestOptions> = {},
  options: Partial<SandboxOptions> = {},
): Promise<Sandbox> {
  const config = testConfig();
  const host = await openHost(config);
  const { environments, close } = await openEnvironments(config, pino({ level: "silent" }), host);
  await environments.prepare();
  await close();
  const { baseImagePath, stdlibPath, guest: environment } = environments.get(environments.defaultName);
  return await Sandbox.start({
    ...host,
    ...options,
    guest: guestOptions({ baseImagePath, stdlibPath, environment, ...guest }),
  });
}

/** Of a job and its message; the rest is as in an internal job. */
export type JobChanges = Partial<Omit<Job, "message"> & Omit<ExecuteMessage, "type" | "program"> & Program>;

/** Runs code on a sandbox of the test's own, and waits until it has rewound. Values are parsed. */
export async function runOn(sandbox: Sandbox, code: string, changes: JobChanges = {}) {
  const job = internalJob(code, 20_000);
  const { timeoutMs = job.timeoutMs, signal, onOutput, calls = job.calls, ...rest } = changes;
  const { stdin = "", stream = false, files = null, packages = null, ...program } = rest;
  const message = { ...job.message, stdin, stream, files, packages, program: { ...job.message.program, ...program } };
  const execution = await sandbox.execute({ message, timeoutMs, signal, onOutput, calls });
  const result = { ...execution.result, result: JSON.parse(execution.result.result.toString()) as unknown };
  return { result, files: execution.files, verdict: await sandbox.idle };
}
