import type { HostConnection } from "../io/host-connection.ts";
import type { Interpreter } from "./interpreter.ts";

/** Does what the host asks for, one task after another, until the host closes the pipe or the process must not go on. */
export function performTasks(interpreter: Interpreter, host: HostConnection, memory: WebAssembly.Memory): void {
  for (let task = host.nextTask(); task !== null; task = host.nextTask()) {
    const verdict = interpreter.perform(task.message, task.body);
    host.report({ type: "idle", verdict, heapBytes: memory.buffer.byteLength });
    if (verdict.state === "discard") return;
  }
}
