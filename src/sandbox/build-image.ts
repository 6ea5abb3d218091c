import { SandboxDiedError } from "../shared/errors.ts";
import type { GuestMessage } from "../wire/guest-messages.ts";
import { type ConnectOptions, connect } from "./connection.ts";

/**
 * Builds a memory image in a process of its own, and ends the process.
 *
 * @throws {SandboxDiedError} with what the process said, if it fails.
 */
export async function buildImage(
  options: ConnectOptions,
): Promise<{ image: Uint8Array } & Omit<Extract<GuestMessage, { type: "image" }>, "type">> {
  const { connection, frame } = await connect(options);
  connection.kill("the image is built");
  if (frame.message.type !== "image") throw new SandboxDiedError(`Building the image failed: "${frame.message.type}".`);
  const { type: _, ...facts } = frame.message;
  return { image: frame.body, ...facts };
}
