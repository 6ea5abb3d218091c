import fc from "fast-check";
import { expect, test } from "vitest";
import { concatenate, encodeFrame, type Frame, FrameReader, NONCE_BYTES } from "./frames.ts";
import type { GuestMessage } from "./guest-messages.ts";
import { readGuestMessage } from "./guest-messages.ts";
import { ProtocolError } from "./protocol-error.ts";

const nonce = "0123456789abcdef".repeat(NONCE_BYTES / 16);
const frame = (reason: string, body: Uint8Array) => concatenate(encodeFrame(nonce, { type: "fatal", reason }, body));
const reader = (maxBytes?: number) => new FrameReader<GuestMessage>(readGuestMessage, maxBytes);

test("frames arrive whole, in order, however the stream is cut", () => {
  const messages = fc.array(fc.tuple(fc.string(), fc.uint8Array({ maxLength: 300 })), { maxLength: 8 });
  fc.assert(
    fc.property(messages, fc.array(fc.integer({ min: 1, max: 97 }), { minLength: 1 }), (sent, cuts) => {
      const stream = concatenate(sent.map(([reason, body]) => frame(reason, body)));
      const frames: Frame<GuestMessage>[] = [];
      const read = reader();
      for (let position = 0, turn = 0; position < stream.length; turn++) {
        const size = cuts[turn % cuts.length] as number;
        frames.push(...read.push(stream.slice(position, position + size)));
        position += size;
      }
      expect(frames.map((f) => [f.nonce, f.message, [...f.body]])).toEqual(
        sent.map(([reason, body]) => [nonce, { type: "fatal", reason: reason.toWellFormed() }, [...body]]),
      );
    }),
  );
});

test("bytes that are no frame are a ProtocolError or not yet a frame, never another exception", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        reader(1024).push(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(ProtocolError);
      }
    }),
    { numRuns: 2000 },
  );
});

test("one changed byte in a frame's head is noticed, or changes only the nonce or the header's text", () => {
  const original = frame("why", new Uint8Array([1, 2, 3]));
  for (let index = 0; index < 12; index++) {
    const bytes = original.slice();
    bytes[index] = (bytes[index] as number) ^ 0x40;
    let frames: Frame<GuestMessage>[] = [];
    try {
      frames = reader(1024).push(bytes);
    } catch (error) {
      expect(error).toBeInstanceOf(ProtocolError);
    }
    expect(frames).toEqual([]);
  }
});

test("a frame over the limit is refused before it is buffered", () => {
  const bytes = frame("x", new Uint8Array(2000));
  expect(() => reader(1024).push(bytes.slice(0, 12))).toThrow(ProtocolError);
});

test("a message of an unknown type is refused", () => {
  const bytes = concatenate(encodeFrame(nonce, { type: "start" } as never));
  expect(() => reader().push(bytes)).toThrow(ProtocolError);
});
