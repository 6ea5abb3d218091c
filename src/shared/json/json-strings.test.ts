import fc from "fast-check";
import { expect, test } from "vitest";
import { base64InSlices, SLICE_BYTES, textInSlices } from "./json-strings.ts";

const joined = ({ parts }: Awaited<ReturnType<typeof textInSlices>>) => Buffer.concat(parts).toString();

/** How often the event loop had its turn while something was made. */
async function turnsDuring(work: Promise<unknown>): Promise<number> {
  let turns = 0;
  let isOver = false;
  const count = () => {
    turns++;
    if (!isOver) setImmediate(count);
  };
  setImmediate(count);
  await work;
  isOver = true;
  return turns;
}

test("a text is the same JSON as in one piece, wherever it is cut", async () => {
  const text = fc.tuple(
    fc.integer({ min: -8, max: 8 }),
    fc.string({ unit: "binary", minLength: 1, maxLength: 30 }),
    fc.boolean(),
  );
  await fc.assert(
    fc.asyncProperty(text, async ([shift, unit, isRepeated]) => {
      const lead = "x".repeat(SLICE_BYTES + shift - Buffer.byteLength(unit));
      const whole = isRepeated ? unit.repeat(Math.ceil((2 * SLICE_BYTES) / unit.length)) : `${lead}${unit}rest`;
      const utf8 = Buffer.from(whole);
      expect(joined(await textInSlices(utf8))).toBe(JSON.stringify(utf8.toString()));
    }),
    { numRuns: 20 },
  );
});

test.each([0, 1, 2, 3, SLICE_BYTES, SLICE_BYTES + 1, 2 * SLICE_BYTES + 2])(
  "%i bytes are one base64 text",
  async (size) => {
    const bytes = Uint8Array.from({ length: size }, (_, index) => index * 7);
    expect(joined(await base64InSlices(bytes))).toBe(JSON.stringify(Buffer.from(bytes).toString("base64")));
  },
);

test("the event loop has its turn between two slices, and no part is long", async () => {
  const escaped = new Uint8Array(20 * SLICE_BYTES).fill(1);
  const text = textInSlices(escaped);
  expect(await turnsDuring(text)).toBeGreaterThanOrEqual(18);
  expect(Math.max(...(await text).parts.map(({ length }) => length))).toBe(6 * SLICE_BYTES);
  expect(await turnsDuring(base64InSlices(escaped))).toBeGreaterThanOrEqual(18);
});
