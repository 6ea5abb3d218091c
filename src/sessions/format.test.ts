import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { SessionState } from "../wire/guest-messages.ts";
import { WorkspaceIndex } from "../workspaces/workspace-index.ts";
import {
  decodeSession,
  decodeSessionFiles,
  encodeSession,
  SessionFormatError,
  type SessionSnapshot,
} from "./format.ts";

const LIMITS = { maxBytes: 1e9, maxFiles: 100 };
const files = WorkspaceIndex.empty(0).merge(
  [{ path: "/home/pyodide/f", kind: "file", mtimeMs: 1.5, size: 3, sha256: "a".repeat(64) }],
  [],
  LIMITS,
);

const state = fc.record({
  heapBytes: fc.nat(2 ** 31 - 1),
  blockCount: fc.nat(20),
  currentPath: fc.string({ maxLength: 50 }),
  nextInode: fc.nat(),
  clockMs: fc.double({ min: 0, max: 1e15, noNaN: true }),
  streams: fc.array(
    fc.record(
      {
        fd: fc.nat(1000),
        path: fc.string(),
        flags: fc.integer(),
        position: fc.nat(),
        group: fc.nat(),
        unnamed: fc.nat(5),
        stale: fc.constant(true as const),
        bytes: fc.nat(),
        listing: fc.string(),
      },
      { requiredKeys: ["fd", "path", "flags", "position", "group"] },
    ),
  ),
  mappings: fc.array(
    fc.record(
      {
        address: fc.nat(),
        length: fc.nat(),
        offset: fc.nat(),
        writable: fc.boolean(),
        path: fc.string(),
        unnamed: fc.nat(5),
        stale: fc.constant(true as const),
      },
      { requiredKeys: ["address", "length", "offset", "writable", "path"] },
    ),
  ),
  unnamed: fc.array(
    fc.record({
      kind: fc.constantFrom("file" as const, "folder" as const, "pipe" as const),
      bytes: fc.nat(50),
      mode: fc.nat(0o177777),
      mtimeMs: fc.integer(),
    }),
    { maxLength: 3 },
  ),
  links: fc.array(fc.record({ path: fc.string(), target: fc.string() })),
}) satisfies fc.Arbitrary<SessionState>;

const memoryBytes = ({ blockCount, unnamed }: SessionState) =>
  unnamed.reduce((sum, { bytes }) => sum + bytes, blockCount * 260);

const openFiles = fc
  .array(fc.tuple(fc.string(), fc.constantFrom("a".repeat(64), "0".repeat(64))))
  .map((entries) => new Map(entries));

const snapshot: fc.Arbitrary<SessionSnapshot> = fc
  .tuple(fc.option(state), fc.nat(), fc.nat(), fc.option(openFiles))
  .map(([state, executions, seed, openFiles]) => ({
    environment: createHash("sha256").update(String(seed)).digest("hex"),
    state,
    memory: Buffer.alloc(state ? memoryBytes(state) : 0, seed & 255),
    files,
    openFiles,
    executions,
  }));

async function sample(): Promise<Uint8Array> {
  const [one] = fc.sample(
    snapshot.filter(({ state }) => (state?.blockCount ?? 0) > 3),
    { numRuns: 1, seed: 1 },
  );
  return (await encodeSession(one as SessionSnapshot)).bytes;
}

describe("the session format", () => {
  test("gives back what was put in", async () => {
    await fc.assert(
      fc.asyncProperty(snapshot, async (before) => {
        const after = await decodeSession((await encodeSession(before)).bytes);
        expect({ ...after, files: after.files.toJson("") }).toEqual({
          ...before,
          memory: expect.objectContaining({ length: before.memory.length }),
          files: files.toJson(""),
        });
        expect(Buffer.compare(after.memory, before.memory)).toBe(0);
      }),
    );
  });

  test("refuses a session that is damaged at any byte, or cut off anywhere, saying what is wrong", async () => {
    const bytes = await sample();
    const messages = new Set<string>();
    const refuse = async (damaged: Uint8Array) => {
      const error = await decodeSession(damaged).catch((error: unknown) => error);
      expect(error).toBeInstanceOf(SessionFormatError);
      await expect(decodeSessionFiles(damaged)).rejects.toThrow(SessionFormatError);
      messages.add((error as Error).message);
    };
    for (let at = 0; at < bytes.length; at++) {
      const damaged = Uint8Array.from(bytes);
      damaged[at] = (damaged[at] as number) ^ (1 << (at % 8));
      await refuse(damaged);
      await refuse(bytes.subarray(0, at));
    }
    const kinds = new Set(Array.from(messages, (message) => message.replace(/version \d+/, "version N")));
    expect(kinds).toEqual(
      new Set([
        "it is cut off",
        "it is not a session",
        "it has format version N, and this server reads 4 and 5",
        "its header is cut off",
        "its checksum is wrong",
      ]),
    );
  });

  test("refuses any bytes that are no session", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 500 }), fc.boolean(), async (bytes, withMagic) => {
        const given = withMagic ? Buffer.concat([Buffer.from("PYEXSESS\x01\0\0\0"), bytes]) : bytes;
        await expect(decodeSession(given)).rejects.toThrow(SessionFormatError);
      }),
    );
  });

  test("refuses a forged one whose checksum is right", async () => {
    const bytes = Buffer.from(await sample());
    const headerBytes = bytes.readUInt32LE(12);
    const header = JSON.parse(bytes.toString("utf8", 16, 16 + headerBytes));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...Object.keys(header), ...Object.keys(header.state).map((key) => `state.${key}`)),
        fc.constantFrom<unknown>(null, -1, 1.5, 1e300, "x", [], {}, [{}], undefined),
        async (path, value) => {
          const forged = structuredClone(header);
          const [first = "", second] = path.split(".");
          if (second === undefined) forged[first] = value;
          else forged[first][second] = value;
          const text = Buffer.from(JSON.stringify(forged));
          const prefix = Buffer.from(bytes.subarray(0, 16));
          prefix.writeUInt32LE(text.length, 12);
          const body = Buffer.concat([prefix, text, bytes.subarray(16 + headerBytes, -32)]);
          const whole = Buffer.concat([body, createHash("sha256").update(body).digest()]);
          // Some values are as good as those that were there; what may not happen is any other error.
          const error = await decodeSession(whole).then(
            () => null,
            (error: unknown) => error,
          );
          expect(error === null || error instanceof SessionFormatError).toBe(true);
        },
      ),
    );
  });

  test("does not decompress more than it says", async () => {
    const { bytes: bomb } = await encodeSession({
      environment: "x",
      state: {
        heapBytes: 2 ** 26,
        blockCount: 2 ** 16,
        currentPath: "/",
        nextInode: 1,
        clockMs: 0,
        streams: [],
        mappings: [],
        unnamed: [],
        links: [],
      },
      memory: Buffer.alloc(2 ** 16 * 260),
      files,
      openFiles: null,
      executions: 0,
    });
    expect(bomb.length).toBeLessThan(10_000);
    const buffer = Buffer.from(bomb);
    const headerBytes = buffer.readUInt32LE(12);
    const header = JSON.parse(buffer.toString("utf8", 16, 16 + headerBytes));
    header.state.blockCount = 1;
    header.memoryBytes = 260;
    const text = Buffer.from(JSON.stringify(header));
    const prefix = Buffer.from(buffer.subarray(0, 16));
    prefix.writeUInt32LE(text.length, 12);
    const body = Buffer.concat([prefix, text, buffer.subarray(16 + headerBytes, -32)]);
    const whole = Buffer.concat([body, createHash("sha256").update(body).digest()]);
    await expect(decodeSession(whole)).rejects.toThrow("the memory cannot be decompressed");
  });

  test("refuses a state that a sandbox made up", async () => {
    const good = fc.sample(state, { numRuns: 1, seed: 2 })[0] as SessionState;
    const encode = (state: unknown, memory: Uint8Array) =>
      encodeSession({ environment: "x", state: state as SessionState, memory, files, openFiles: null, executions: 0 });
    await expect(encode({ ...good, blockCount: 3 }, new Uint8Array(1))).rejects.toThrow("does not fit");
    await expect(encode({ ...good, streams: [{ fd: "0" }] }, new Uint8Array(0))).rejects.toThrow("streams.0.fd");
    const pipe = { kind: "pipe", bytes: 1, mode: 0, mtimeMs: 0 };
    await expect(encode({ ...good, unnamed: [{ ...pipe, bytes: -1 }] }, new Uint8Array(0))).rejects.toThrow(
      "unnamed.0.bytes",
    );
    await expect(encode({ ...good, blockCount: 0, unnamed: [pipe] }, new Uint8Array(0))).rejects.toThrow(
      "does not fit",
    );
    await expect(encode({ ...good, heapBytes: 2 ** 40 }, new Uint8Array(0))).rejects.toThrow("heapBytes");
  });
});
