import fc from "fast-check";
import { concatenate } from "../../../src/wire/frames.ts";

interface Change {
  readonly at: number;
  readonly kind: "set" | "flip" | "cut" | "double" | "insert";
  readonly byte: number;
}

/** What {@link damage} does to sound bytes. Nearly right finds more than nonsense. */
export const changes: fc.Arbitrary<readonly Change[]> = fc.array(
  fc.record({
    at: fc.nat(),
    kind: fc.constantFrom("set", "flip", "cut", "double", "insert"),
    byte: fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 127, 128, 255)),
  }),
  { maxLength: 4 },
);

export function damage(sound: Uint8Array, changes: readonly Change[]): Uint8Array {
  let result: Uint8Array = sound.slice();
  for (const { at, kind, byte } of changes) {
    // Headers are where decisions are made.
    const index = at % Math.max(1, at % 3 === 0 ? result.length : Math.min(result.length, 64));
    if (kind === "set") result[index] = byte;
    else if (kind === "flip") result[index] = (result[index] ?? 0) ^ (1 << (byte % 8));
    else if (kind === "cut") result = result.slice(0, index);
    else if (kind === "double") result = concatenate([result.slice(0, index), result]);
    else result = concatenate([result.slice(0, index), new Uint8Array([byte]), result.slice(index)]);
  }
  return result;
}

export function damaged(sound: fc.Arbitrary<Uint8Array>): fc.Arbitrary<Uint8Array> {
  return fc.tuple(sound, changes).map(([bytes, changes]) => damage(bytes, changes));
}

type Documented = abstract new (...parameters: never[]) => Error;

/** Either a value, or the error that the module documents; anything else fails the property. */
export function survives<T>(read: () => T, documented: Documented): T | null {
  try {
    return read();
  } catch (error) {
    if (error instanceof documented) return null;
    throw error;
  }
}

/** As {@link survives}. */
export async function survivesLater<T>(read: () => Promise<T>, documented: Documented): Promise<T | null> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof documented) return null;
    throw error;
  }
}
