import { pino } from "pino";
import { bootOptions, openEnvironments, openHost } from "../../src/compose/server.ts";
import { type Job, type JobResult, jobOfNobody, Sandbox, type SandboxOptions } from "../../src/sandbox/sandbox.ts";
import type { GuestOptions } from "../../src/wire/frames.ts";
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

/** Runs code on a sandbox that is nobody's, and waits until it has rewound. */
export async function runOn(sandbox: Sandbox, code: string, job: Partial<Job> = {}) {
  const result: JobResult = await sandbox.execute({ ...jobOfNobody(code, 20_000), ...job });
  const outcome = { ...result.outcome, result: JSON.parse(result.value.toString()) as unknown };
  return { result: { ...result, outcome }, verdict: await sandbox.idle };
}
