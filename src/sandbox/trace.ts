import type { GuestMessage } from "../wire/guest-messages.ts";
import type { HostMessage } from "../wire/messages.ts";

/** One frame on a sandbox's pipes, without anything that user code or a caller has put into it. */
export interface TracedFrame {
  /** Of the outermost process of the sandbox. */
  readonly pid: number;
  readonly direction: "sent" | "received";
  readonly type: (HostMessage | GuestMessage)["type"];
  /** Which host call, which verdict, how large the parts; empty: nothing to add. */
  readonly detail: string;
  /** Header and body. */
  readonly bytes: number;
}

export type FrameTrace = (frame: TracedFrame) => void;

/** @param body how many bytes the frame has behind its header. */
export function traced(
  pid: number,
  direction: TracedFrame["direction"],
  message: HostMessage | GuestMessage,
  body: number,
): TracedFrame {
  const bytes = Buffer.byteLength(JSON.stringify(message)) + body;
  return { pid, direction, type: message.type, detail: detailOf(message), bytes };
}

function detailOf(message: HostMessage | GuestMessage): string {
  switch (message.type) {
    case "execute":
      return message.program.execution === null ? "stateless" : "session";
    case "call":
      return message.operation;
    case "output":
      return message.stream;
    case "display":
      return message.kind ?? "";
    case "idle":
      return message.verdict.state === "discard" ? `discard: ${message.verdict.reason}` : message.verdict.state;
    case "result":
      return `value ${message.valueBytes} B, stdout ${message.stdoutBytes} B, stderr ${message.stderrBytes} B`;
    default:
      return "";
  }
}
