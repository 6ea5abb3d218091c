import fc from "fast-check";
import { expect, test } from "vitest";
import { CollectedOutput } from "./collected-output.ts";

test("what went in comes out, whatever its pieces", () => {
  const piece = fc.oneof(fc.uint8Array({ maxLength: 40 }), fc.uint8Array({ minLength: 4000, maxLength: 9000 }));
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 60 }), (pieces) => {
      const collected = new CollectedOutput();
      for (const bytes of pieces) collected.push(bytes);
      expect(collected.toBuffer()).toEqual(Buffer.concat(pieces));
      expect(collected.toBuffer()).toEqual(Buffer.concat(pieces));
    }),
  );
});

test("a million pieces of a byte take a few megabytes", () => {
  const collected = new CollectedOutput();
  const large = new Uint8Array(64 * 1024);
  globalThis.gc?.();
  const before = process.memoryUsage().arrayBuffers;
  for (let index = 0; index < 1_000_000; index++) collected.push(large.subarray(0, 1));
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 * 1024 * 1024);
  expect(collected.toBuffer().length).toBe(1_000_000);
});
