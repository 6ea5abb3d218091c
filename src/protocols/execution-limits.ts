import type { ExecutionResult } from "../sandbox/outcome.ts";
import { MAX_OUTPUT_BYTES } from "../wire/messages.ts";

const MAX_TRACEBACK_LINES = 5000;
const PRINTED = `${MAX_OUTPUT_BYTES / 1024 / 1024} MiB`;
const NOTE = `[Output was cut: one execution prints up to ${PRINTED} to stdout and to stderr each, and shows up to 10 MiB. Write more than that to a file.]`;

/** The program was stopped for its time, on the clock or of the processor. */
export function isOutOfTime({ status }: Pick<ExecutionResult, "status">): boolean {
  return status === "timeout" || status === "cpu_limit";
}

/** A traceback by lines, as notebooks have it; in one piece where it has more than any of Python's own. */
export function tracebackLines(traceback: string): string[] {
  const text = traceback.trimEnd();
  const lines = text.split("\n", MAX_TRACEBACK_LINES + 1);
  return lines.length > MAX_TRACEBACK_LINES ? [text] : lines;
}

/** The last line of stderr where a protocol has no member for it: output was beyond its bound; else empty. */
export function cutNote({ truncated }: Pick<ExecutionResult, "truncated">): string {
  return truncated ? `${NOTE}\n` : "";
}

/** `stderr` with {@link cutNote} behind it, on a line of its own. */
export function withCutNote(stderr: string, result: Pick<ExecutionResult, "truncated">): string {
  const note = cutNote(result);
  return note === "" || stderr === "" || stderr.endsWith("\n") ? stderr + note : `${stderr}\n${note}`;
}
