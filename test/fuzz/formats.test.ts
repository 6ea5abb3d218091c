import fc from "fast-check";
import { expect, test } from "vitest";
import { Archive, ArchiveFormatError, encodeArchiveHeader, parseArchive } from "../../src/sandbox/archive-format.ts";
import { decodeImage, encodeImage, ImageFormatError } from "../../src/sandbox/image-format.ts";
import {
  concatenate,
  encodeFrame,
  FrameReader,
  GUEST_MESSAGE_TYPES,
  type GuestMessage,
  ProtocolError,
} from "../../src/sandbox/protocol.ts";
import { FUZZ_RUNS, FUZZ_TIMEOUT_MS } from "./runs.ts";

const options = { numRuns: FUZZ_RUNS };
const NONCE = "0123456789abcdef".repeat(2);

/** A sound input with some bytes changed, cut, doubled or put in: nearly right finds more than nonsense. */
function damaged(sound: fc.Arbitrary<Uint8Array>): fc.Arbitrary<Uint8Array> {
  const change = fc.record({
    at: fc.nat(),
    kind: fc.constantFrom("set", "flip", "cut", "double", "insert"),
    byte: fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 127, 128, 255)),
  });
  return fc.tuple(sound, fc.array(change, { minLength: 0, maxLength: 4 })).map(([bytes, changes]) => {
    let result: Uint8Array = bytes.slice();
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
  });
}

/** Either a value, or the error that the module documents; anything else fails the property. */
function survives<T>(read: () => T, documented: new (message: string) => Error): T | null {
  try {
    return read();
  } catch (error) {
    if (error instanceof documented) return null;
    throw error;
  }
}

const message = fc.oneof(
  fc.record({ type: fc.constantFrom(...GUEST_MESSAGE_TYPES), value: fc.jsonValue() }),
  fc.jsonValue(),
) as fc.Arbitrary<unknown> as fc.Arbitrary<GuestMessage>;
const frame = fc
  .tuple(message, fc.uint8Array({ maxLength: 200 }))
  .map(([header, body]) => concatenate(encodeFrame(NONCE, header, body)));

test("frames: any bytes, in any pieces, are frames or a protocol error", { timeout: FUZZ_TIMEOUT_MS }, () => {
  const stream = fc.array(damaged(frame), { maxLength: 4 }).map((parts) => concatenate(parts));
  fc.assert(
    fc.property(
      fc.oneof(stream, fc.uint8Array({ maxLength: 300 })),
      fc.array(fc.integer({ min: 1, max: 50 })),
      (bytes, sizes) => {
        const reader = new FrameReader<GuestMessage>(GUEST_MESSAGE_TYPES, 1 << 20);
        survives(() => {
          for (let at = 0, i = 0; at < bytes.length; i++) {
            const size = sizes[i % Math.max(1, sizes.length)] ?? bytes.length;
            for (const { nonce, message } of reader.push(bytes.subarray(at, at + size))) {
              expect(GUEST_MESSAGE_TYPES).toContain(message.type);
              expect(typeof nonce).toBe("string");
            }
            at += size;
          }
        }, ProtocolError);
      },
    ),
    options,
  );
});

test("frames: nothing is lost, however the bytes are cut", { timeout: FUZZ_TIMEOUT_MS }, () => {
  const sound = fc.record({ value: fc.jsonValue(), body: fc.uint8Array({ maxLength: 100 }) });
  fc.assert(
    fc.property(
      fc.array(sound, { maxLength: 5 }),
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }),
      (sent, sizes) => {
        const bytes = concatenate(
          sent.flatMap(({ value, body }) => encodeFrame(NONCE, { type: "fatal", reason: JSON.stringify(value) }, body)),
        );
        const reader = new FrameReader<GuestMessage>(GUEST_MESSAGE_TYPES);
        const received = [];
        for (let at = 0, i = 0; at < bytes.length; i++) {
          const size = sizes[i % sizes.length] as number;
          received.push(...reader.push(bytes.subarray(at, at + size)));
          at += size;
        }
        expect(received.map(({ message, body }) => [message, [...body]])).toEqual(
          sent.map(({ value, body }) => [{ type: "fatal", reason: JSON.stringify(value) }, [...body]]),
        );
      },
    ),
    options,
  );
});

const path = fc.oneof(
  fc.string({ maxLength: 20 }),
  fc.constantFrom("a", "a/b", "..", "../x", "/etc/passwd", "a//b", "a/./b", "a\\b", "a\0b", "__proto__", "constructor"),
);
const archive = fc
  .uniqueArray(fc.record({ path, data: fc.uint8Array({ maxLength: 40 }) }), {
    selector: (file) => file.path,
    maxLength: 6,
  })
  .map((files) => {
    const index = files.map(({ path, data }) => ({ path, size: data.length }));
    const made = survives(() => encodeArchiveHeader(index), ArchiveFormatError);
    if (made === null) return new Uint8Array(16);
    const data = made.entries.map((entry) => files.find((file) => file.path === entry.path)?.data as Uint8Array);
    return concatenate([made.header, ...data]);
  });

test("archives: any bytes are an archive whose every file can be read, or an error", {
  timeout: FUZZ_TIMEOUT_MS,
}, () => {
  fc.assert(
    fc.property(fc.oneof(damaged(archive), fc.uint8Array()), (bytes) => {
      survives(() => {
        const read: Archive = parseArchive(bytes);
        for (const entry of read.entries) {
          expect(read.read(entry)).toHaveLength(entry.size);
          expect(entry.path.split("/")).not.toContain("..");
          expect(entry.path.startsWith("/")).toBe(false);
        }
      }, ArchiveFormatError);
    }),
    options,
  );
});

test("archives: any list of entries is refused, or sound", { timeout: FUZZ_TIMEOUT_MS }, () => {
  const size = fc.oneof(fc.integer({ min: -2, max: 50 }), fc.double(), fc.constantFrom(2 ** 53, Number.NaN));
  const entry = fc.oneof(
    fc.record({ path, offset: size, size, kind: fc.constantFrom("library", undefined, 5) }),
    fc.jsonValue(),
  );
  fc.assert(
    fc.property(fc.oneof(fc.array(entry, { maxLength: 5 }), fc.jsonValue()), fc.nat(200), (entries, totalBytes) => {
      survives(() => new Archive(() => new Uint8Array(0), totalBytes, entries as never), ArchiveFormatError);
    }),
    options,
  );
});

const image = fc
  .record({
    blocks: fc.array(fc.boolean(), { minLength: 1, maxLength: 6 }),
    slots: fc.array(fc.nat(), { maxLength: 3 }),
  })
  .map(({ blocks, slots }) => {
    const memory = new Uint8Array(blocks.length * 4096);
    blocks.forEach((filled, index) => {
      if (filled) memory.fill(7, index * 4096, index * 4096 + 10);
    });
    const tables = { tableLength: 1, freeTableSlots: slots, references: 0, referenceSlots: slots };
    return encodeImage(memory, { ...tables, stackPointer: 16, pythonVersion: "3.14.2" });
  });

test("images: any bytes are an image whose runs lie in its heap, or an error", { timeout: FUZZ_TIMEOUT_MS }, () => {
  fc.assert(
    fc.property(fc.oneof(damaged(image), fc.uint8Array()), (bytes) => {
      survives(() => {
        const { header, data } = decodeImage(bytes);
        let total = 0;
        for (const [start, end] of header.runs) {
          expect(start).toBeLessThan(end);
          expect(end).toBeLessThanOrEqual(header.heapBytes);
          total += end - start;
        }
        expect(total).toBe(data.length);
      }, ImageFormatError);
    }),
    options,
  );
});
