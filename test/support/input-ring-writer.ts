/** The other thread of `input-ring.test.ts`. */
import { workerData } from "node:worker_threads";
import { InputRing } from "../../src/guest/io/input-ring.ts";
import { CONTROL, type Shared, wakeInterpreter } from "../../src/guest/io/shared-state.ts";

const { shared, frames } = workerData as { shared: Shared; frames: readonly (readonly Uint8Array[])[] };
const writer = new InputRing(shared);
for (const parts of frames) {
  for (const part of parts) writer.write(part);
  writer.flush();
}
const control = new Int32Array(shared.control);
Atomics.store(control, CONTROL.CLOSED, 1);
wakeInterpreter(control);
