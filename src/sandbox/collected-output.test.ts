import fc from "fast-check";
import { expect, test } from "vitest";
import { CollectedOutput } from "./collected-output.ts";

test("what went in comes out, whatever its pieces", () => {
  const length = fc.oneof(fc.nat(40), fc.integer({ min: 4000, max: 9000 }));
  fc.assert(
    fc.property(fc.array(length, { maxLength: 60 }), (lengths) => {
      let next = 0;
      const pieces = lengths.map((bytes) => Uint8Array.from({ length: bytes }, () => next++));
      const collected = new CollectedOutput();
      for (const bytes of pieces) collected.push(bytes);
      const whole = Buffer.concat(pieces);
      // Not `toEqual`, which looks at each byte as a property.
      expect(collected.toBuffer().equals(whole)).toBe(true);
      expect(collected.toBuffer().equals(whole)).toBe(true);
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
