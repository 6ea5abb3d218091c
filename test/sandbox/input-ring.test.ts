import { once } from "node:events";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { expect, test } from "vitest";
import { InputRing } from "../../src/guest/io/input-ring.ts";
import { createShared, INPUT_BYTES } from "../../src/guest/io/shared-state.ts";

/** Sizes of a frame's parts: small ones, and such as do not fit into the ring. */
const sizes = fc.array(fc.oneof(fc.nat(200), fc.integer({ min: INPUT_BYTES - 50, max: 3 * INPUT_BYTES })), {
  minLength: 1,
  maxLength: 4,
});

/** Another byte at every place, so that none can stand for another. */
function numbered(sizes: readonly number[], from: number): Uint8Array[] {
  let next = from;
  return sizes.map((size) => Uint8Array.from({ length: size }, () => (next++ * 31) % 251));
}

test("what one thread writes another reads, whole and in order, up to the end", { timeout: 120_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(sizes, { maxLength: 6 }), fc.boolean(), async (list, isEarly) => {
      const frames = list.map((sizes, index) => numbered(sizes, index * 7));
      const shared = createShared();
      const url = new URL("../support/input-ring-writer.ts", import.meta.url);
      const worker = new Worker(url, { workerData: { shared, frames } });
      // Either waits for the other at some time.
      if (isEarly) await once(worker, "online");
      const reader = new InputRing(shared);
      const parts: Uint8Array[] = [];
      for (let part = reader.read(); part !== null; part = reader.read()) parts.push(part);
      expect(Buffer.concat(parts).equals(Buffer.concat(frames.flat()))).toBe(true);
      await worker.terminate();
    }),
    { numRuns: 25 },
  );
});
