import type { FrameTrace } from "../sandbox/trace.ts";

/**
 * Writes a line for each frame: ms since the first, ms since the one before, the sandbox, the direction, the type, the size.
 *
 * @param write takes one line with its newline.
 * @param now ms, monotonic.
 */
export function frameTable(write: (line: string) => void, now: () => number = () => performance.now()): FrameTrace {
  let startedAt: number | null = null;
  let lastAt = 0;
  return ({ pid, direction, type, detail, bytes }) => {
    const at = now();
    if (startedAt === null) {
      write("trace      ms   +ms  sandbox    frame            bytes\n");
      startedAt = at;
      lastAt = at;
    }
    const column = (value: number) => value.toFixed(1).padStart(6);
    const arrow = direction === "sent" ? "→" : "←";
    const cells = [`trace  ${column(at - startedAt)}`, column(at - lastAt).slice(-5), String(pid).padStart(8)];
    write(
      `${cells.join(" ")}  ${arrow} ${type.padEnd(12)} ${String(bytes).padStart(9)}  ${detail}`.trimEnd().concat("\n"),
    );
    lastAt = at;
  };
}
