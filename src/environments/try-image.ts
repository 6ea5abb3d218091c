import { PackageError } from "../packages/package-error.ts";
import { internalJob } from "../sandbox/running-job.ts";
import { Sandbox, type SandboxOptions } from "../sandbox/sandbox.ts";
import { SandboxDiedError } from "../shared/errors.ts";
import type { GuestEnvironment, GuestOptions } from "../wire/messages.ts";
import { UNBOUNDED } from "./image-build.ts";

/** How long a first start may take, and the execution after it. */
const TRY_OUT_MS = 60_000;

/**
 * Starts one sandbox from an image and runs something in it: a library may do another thing here than while the image was built.
 *
 * @throws {PackageError} if that fails, with its reason.
 */
export async function tryImage(
  { baseImagePath, stdlibPath }: Pick<GuestOptions, "baseImagePath" | "stdlibPath">,
  environment: GuestEnvironment,
  host: Omit<SandboxOptions, "guest">,
): Promise<void> {
  const failed = (reason: string, cause?: unknown) =>
    new PackageError("package_incompatible", `The packages cannot be used here: ${reason}.`, { cause });
  const options = {
    ...host,
    startTimeoutMs: Math.max(host.startTimeoutMs, TRY_OUT_MS),
    guest: {
      baseImagePath,
      stdlibPath,
      environment,
      preload: [],
      ...UNBOUNDED,
    },
  };
  const sandbox = await Sandbox.start(options).catch((error) => {
    if (!(error instanceof SandboxDiedError)) throw error;
    throw failed(`no sandbox starts with them (${firstLine(error.message)})`, error);
  });
  try {
    await sandbox.execute(internalJob("None", TRY_OUT_MS));
    // A process that has ended is one to discard, too.
    const verdict = await sandbox.idle;
    if (verdict.state === "discard") throw failed(`a sandbox with them does not last (${verdict.reason})`);
  } finally {
    sandbox.kill("it was tried out");
  }
}

/** What a process that did not start has said, without where in its program that was. */
function firstLine(message: string): string {
  const [line = ""] = message.split("\n");
  return line.slice(line.lastIndexOf("Error: ") + "Error: ".length);
}
