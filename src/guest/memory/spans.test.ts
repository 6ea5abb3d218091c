import fc from "fast-check";
import { expect, test } from "vitest";
import { complement, intersection, joined, type Span, spansOf, ZERO } from "./spans.ts";

const HEAP_BYTES = 64;

/** Ranges in order that do not touch, as an image and the kernel list them. */
const ranges = fc
  .uniqueArray(fc.integer({ min: 0, max: HEAP_BYTES }), { maxLength: 12 })
  .map((ends) => ends.sort((a, b) => a - b))
  .map((ends) =>
    Array.from({ length: ends.length >> 1 }, (_, index): readonly [number, number] => [
      ends[2 * index] as number,
      ends[2 * index + 1] as number,
    ]),
  );

/** Where in the image each byte lies that the spans have; the plain model. */
function bytesOf(spans: readonly Span[]): Map<number, number> {
  const bytes = new Map<number, number>();
  for (const { start, end, source } of spans) {
    expect(start).toBeLessThan(end);
    for (let at = start; at < end; at++) {
      expect(bytes.has(at)).toBe(false);
      bytes.set(at, source === ZERO ? ZERO : source + at - start);
    }
  }
  return bytes;
}

const lies = (at: number, among: readonly (readonly [number, number])[]) =>
  among.some(([from, to]) => at >= from && at < to);

test("the spans of an image name every byte of the heap, zero where no run lies", () => {
  fc.assert(
    fc.property(ranges, (runs) => {
      const bytes = bytesOf(spansOf(runs, HEAP_BYTES));
      expect(bytes.size).toBe(HEAP_BYTES);
      let source = 0;
      for (let at = 0; at < HEAP_BYTES; at++) expect(bytes.get(at)).toBe(lies(at, runs) ? source++ : ZERO);
    }),
  );
});

test("an intersection has the bytes of the spans that lie in a range, and the complement has the others", () => {
  fc.assert(
    fc.property(ranges, ranges, (runs, written) => {
      const spans = spansOf(runs, HEAP_BYTES);
      const all = bytesOf(spans);
      const inside = bytesOf(intersection(spans, written));
      const outside = bytesOf(intersection(spans, complement(written)));
      for (const [at, source] of all) {
        expect(inside.get(at)).toBe(lies(at, written) ? source : undefined);
        expect(outside.get(at)).toBe(lies(at, written) ? undefined : source);
      }
      expect(inside.size + outside.size).toBe(HEAP_BYTES);
    }),
  );
});

test("joined spans say the same in as few as do", () => {
  fc.assert(
    fc.property(ranges, ranges, (runs, written) => {
      const spans = spansOf(runs, HEAP_BYTES);
      const parts = [...intersection(spans, written), ...intersection(spans, complement(written))];
      const sorted = parts.sort((a, b) => a.start - b.start);
      const whole = joined(sorted);
      expect(bytesOf(whole)).toEqual(bytesOf(spans));
      expect(whole).toEqual(spans);
    }),
  );
});
