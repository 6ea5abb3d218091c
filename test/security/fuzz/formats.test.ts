import fc from "fast-check";
import { expect } from "vitest";
import { Archive, ArchiveFormatError, encodeArchiveHeader, parseArchive } from "../../../src/wire/archive-format.ts";
import { concatenate, encodeFrame, FrameReader } from "../../../src/wire/frames.ts";
import type { GuestMessage } from "../../../src/wire/guest-messages.ts";
import { guestMessage, readGuestMessage } from "../../../src/wire/guest-messages.ts";
import { decodeImage, encodeImage, ImageFormatError } from "../../../src/wire/image-format.ts";
import { ProtocolError } from "../../../src/wire/protocol-error.ts";
import { damaged, survives } from "./damage.ts";
import { fuzz } from "./property.ts";

const GUEST_MESSAGE_TYPES = guestMessage.options.map((option) => [...option.shape.type.values][0]);
const NONCE = "0123456789abcdef".repeat(2);

const header = fc.oneof(
  fc.record({ type: fc.constantFrom(...GUEST_MESSAGE_TYPES), value: fc.jsonValue() }),
  fc.jsonValue(),
);
const frame = fc
  .tuple(header, fc.uint8Array({ maxLength: 200 }))
  // Any JSON at all in place of a message.
  .map(([value, body]) => concatenate(encodeFrame(NONCE, { toJSON: () => value } as never, body)));

const stream = fc.array(damaged(frame), { maxLength: 4 }).map((parts) => concatenate(parts));
fuzz(
  "frames: any bytes, in any pieces, are frames or a protocol error",
  fc.property(
    fc.oneof(stream, fc.uint8Array({ maxLength: 300 })),
    fc.array(fc.integer({ min: 1, max: 50 })),
    (bytes, sizes) => {
      const reader = new FrameReader<GuestMessage>(readGuestMessage, 1 << 20);
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
);

const sent = fc.record({ value: fc.jsonValue(), body: fc.uint8Array({ maxLength: 100 }) });
fuzz(
  "frames: nothing is lost, however the bytes are cut",
  fc.property(
    fc.array(sent, { maxLength: 5 }),
    fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }),
    (sent, sizes) => {
      const bytes = concatenate(
        sent.flatMap(({ value, body }) => encodeFrame(NONCE, { type: "fatal", reason: JSON.stringify(value) }, body)),
      );
      const reader = new FrameReader<GuestMessage>(readGuestMessage);
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
);

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

fuzz(
  "archives: any bytes are an archive whose every file can be read, or an error",
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
);

const size = fc.oneof(fc.integer({ min: -2, max: 50 }), fc.double(), fc.constantFrom(2 ** 53, Number.NaN));
const entry = fc.oneof(
  fc.record({ path, offset: size, size, kind: fc.constantFrom("library", undefined, 5) }),
  fc.jsonValue(),
);
fuzz(
  "archives: any list of entries is refused, or sound",
  fc.property(fc.oneof(fc.array(entry, { maxLength: 5 }), fc.jsonValue()), fc.nat(200), (entries, totalBytes) => {
    survives(() => new Archive(() => new Uint8Array(0), totalBytes, entries as never), ArchiveFormatError);
  }),
);

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
    return encodeImage(memory, { ...tables, openFiles: [], stackPointer: 16, pythonVersion: "3.14.2" });
  });

fuzz(
  "images: any bytes are an image whose runs lie in its heap, or an error",
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
);
