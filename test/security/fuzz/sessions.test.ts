import { createHash } from "node:crypto";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import fc from "fast-check";
import { afterAll, beforeAll, expect } from "vitest";
import type { Capture } from "../../../src/sandbox/running-job.ts";
import type { Sandbox } from "../../../src/sandbox/sandbox.ts";
import { decodeSession, decodeSessionFiles, encodeSession, SessionFormatError } from "../../../src/sessions/format.ts";
import { temporaryFolder } from "../../../src/shared/testing/temporary-folder.ts";
import type { FileListing } from "../../../src/wire/messages.ts";
import { WorkspaceIndex } from "../../../src/workspaces/workspace-index.ts";
import { runOn, startTestSandbox } from "../../support/sandbox.ts";
import { startTestServer, type TestServer } from "../../support/server.ts";
import { changes, damage, damaged, survivesLater } from "./damage.ts";
import { fuzz } from "./property.ts";

const CHECKSUM_BYTES = 32;
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes);

/** Puts the right checksum on what was changed, as only somebody can who may write to the store. */
function resealed(bytes: Uint8Array): Uint8Array {
  const content = bytes.subarray(0, Math.max(0, bytes.length - CHECKSUM_BYTES));
  return Buffer.concat([content, sha256(content).digest()]);
}

const files = WorkspaceIndex.empty(0).merge(
  [{ path: "/home/pyodide/f", kind: "file", mtimeMs: 1, size: 3, sha256: "a".repeat(64) }],
  [],
  { maxBytes: 1e9, maxFiles: 100 },
);
const STATE = {
  heapBytes: 1 << 25,
  currentPath: "/tmp",
  nextInode: 9,
  clockMs: 5,
  streams: [],
  mappings: [],
  unnamed: [],
  links: [],
};
const STORED = await Promise.all(
  [0, 1, 7].map(async (blockCount) => {
    const memory = new Uint8Array(blockCount * 260).fill(blockCount);
    const state = { ...STATE, blockCount };
    const openFiles = blockCount === 7 ? new Map([["/tmp/f", "a".repeat(64)]]) : null;
    const snapshot = { environment: "e".repeat(64), state, memory, files, openFiles, executions: 1 };
    return (await encodeSession(snapshot)).bytes;
  }),
);
const stored = fc.oneof(
  damaged(fc.constantFrom(...STORED)),
  damaged(fc.constantFrom(...STORED)).map(resealed),
  fc.uint8Array(),
);

fuzz(
  "stored sessions: any bytes are a session whose memory fits its state, or an error",
  fc.asyncProperty(stored, async (bytes) => {
    const session = await survivesLater(() => decodeSession(bytes), SessionFormatError);
    if (session) expect(session.memory.length).toBe((session.state?.blockCount ?? 0) * 260);
    const listing = (await survivesLater(() => decodeSessionFiles(bytes), SessionFormatError))?.listing;
    for (const { path } of listing ?? []) expect(path).toMatch(/^\/(home\/pyodide|tmp|plots)(\/|$)/);
  }),
);

const NO_FILES: FileListing = { entries: [], maxBytes: 1e8, maxFiles: 1000 };
const USE_SESSION = "import json; json.dumps([f()[5], open('/tmp/f', 'w').write('y')])";
let sandbox: Sandbox;
let normal: unknown;
let captured: Extract<Capture, { state: object }>;

beforeAll(async () => {
  sandbox = await startTestSandbox();
  await sandbox.load(null, NO_FILES, null);
  await runOn(sandbox, "x = list(range(1000))\ndef f(): return x", { execution: 1 });
  const capture = await sandbox.captured;
  if (capture.state === null) throw new Error(capture.reason);
  captured = capture;
  await sandbox.rewind();
  normal = (await runOn(sandbox, LOOK_AROUND)).result.result;
  expect(normal).toBeInstanceOf(Array);
});
afterAll(() => sandbox?.kill("the test is over"));

const number = fc.oneof(fc.integer({ min: -5, max: 2 ** 33 }), fc.constantFrom(0, 2 ** 31, 2 ** 32, 1e300));
const sandboxPath = fc.oneof(
  fc.constantFrom(
    "/",
    "",
    "..",
    "/tmp",
    "/tmp/f",
    "/dev/sandbox",
    "/lib/python314.zip",
    "/lib/python314.zip/os.py",
    "/proc",
    "a\0b",
    "/tmp/".repeat(900),
  ),
  fc.string({ maxLength: 20 }),
);
const stream = fc.record({
  fd: fc.oneof(fc.nat(20), number),
  path: sandboxPath,
  flags: fc.oneof(fc.nat(4096), number),
  position: number,
  group: fc.nat(3),
});
const odd = fc.record(
  { unnamed: fc.oneof(fc.nat(3), number), bytes: number, listing: fc.string() },
  { requiredKeys: [] },
);
const unnamedFile = fc.record({
  kind: fc.constantFrom("file" as const, "folder" as const, "pipe" as const),
  bytes: fc.oneof(fc.constant(0), number),
  mode: fc.oneof(fc.constantFrom(0o100644, 0o040755, 0), number),
  mtimeMs: number,
});
const oddStream = fc.tuple(stream, odd).map(([usual, more]) => ({ ...usual, ...more }));
/** One thing at a time, else nearly everything is refused for its first fault. */
const nonsense = fc.oneof(
  { arbitrary: fc.constant({}), weight: 6 },
  fc.record({ heapBytes: number }),
  fc.record({ currentPath: sandboxPath }),
  fc.record({ nextInode: number }),
  fc.record({ clockMs: fc.oneof(number, fc.double()) }),
  fc.record({ streams: fc.array(stream, { minLength: 1, maxLength: 4 }) }),
  fc.record({
    streams: fc.array(oddStream, { minLength: 1, maxLength: 4 }),
    unnamed: fc.array(unnamedFile, { maxLength: 3 }),
  }),
  fc.record({ links: fc.array(fc.record({ path: sandboxPath, target: sandboxPath }), { minLength: 1, maxLength: 4 }) }),
);
const pokes = fc.array(
  fc.record({ at: fc.nat(), byte: fc.nat(255), blockNumber: fc.nat(40).map((chance) => chance === 0) }),
  { maxLength: 300 },
);

/** Changes bytes of the blocks' contents, or of their numbers. */
function poked(
  memory: Uint8Array,
  blockCount: number,
  changes: readonly { at: number; byte: number; blockNumber: boolean }[],
) {
  const result = memory.slice();
  const numbersEnd = blockCount * 4;
  for (const { at, byte, blockNumber } of changes) {
    const place = blockNumber ? at % numbersEnd : numbersEnd + (at % (result.length - numbersEnd));
    result[place] = byte;
  }
  return result;
}

const LOOK_AROUND = `
import os, sys, time, gc
def exists(fd):
    try: return os.fstat(fd).st_mode
    except OSError: return None
[[sorted(os.listdir(f)) for f in ("/", "/tmp", "/home/pyodide", "/plots", "/lib", "/dev")], os.getcwd(), os.path.islink("/tmp"),
 [exists(fd) for fd in range(64)], sorted(sys.modules), 0 <= time.monotonic() < 1e11, sorted(globals())]
`;

// What does not fit costs a process.
fuzz(
  "a compromised store: what is loaded is refused or runs to some result, and the next finds nothing of it",
  fc.asyncProperty(nonsense, pokes, async (changes, bytes) => {
    if (sandbox.endReason !== null) sandbox = await startTestSandbox();
    const state = { ...captured.state, ...changes };
    const memory = poked(captured.memory, captured.state.blockCount, bytes);
    const verdict = await sandbox.load({ state, memory }, NO_FILES, null);
    if (verdict.state === "resident") {
      const { result } = await runOn(sandbox, USE_SESSION, { execution: 2, timeoutMs: 1000 });
      expect(result).toHaveProperty("success");
      if ((await sandbox.idle).state === "resident") await sandbox.rewind();
    }
    if ((await sandbox.idle).state !== "pristine") return sandbox.kill("it is not used again, by anybody");
    expect((await runOn(sandbox, LOOK_AROUND)).result.result).toEqual(normal);
  }),
  { percent: 1 },
);

let server: TestServer;
let session: { record: { head: { sha256: string } }; bytes: Buffer };
const dataDir = temporaryFolder("fuzz-sessions");
const settings = { DATA_DIR: dataDir, POOL_SIZE: "1", SESSION_DURABILITY: "commit" };

beforeAll(async () => {
  server = await startTestServer(settings);
  expect((await server.post("/api/sessions", { id: "damaged" })).status).toBe(201);
  for (const code of ["x = 1", "y = [x] * 100\ny[5]"]) await server.post("/api/execute", { code, session: "damaged" });
  session = storedSession();
});
afterAll(async () => {
  await server?.stop(0);
});

/** The session as it is stored now, and the bytes of its state. */
function storedSession(): typeof session {
  return inStore((index) => {
    const row = index.prepare("SELECT record FROM sessions WHERE id = 'damaged'").get() as { record: string };
    const record = JSON.parse(row.record);
    const content = index.prepare("SELECT bytes FROM contents WHERE sha256 = ?").get(record.head.sha256);
    return { record, bytes: Buffer.from((content as { bytes: Uint8Array }).bytes) };
  });
}

function inStore<T>(action: (index: DatabaseSync) => T): T {
  const index = new DatabaseSync(path.join(dataDir, "sessions/index.sqlite"), { timeout: 10_000 });
  try {
    return action(index);
  } finally {
    index.close();
  }
}

/** Makes `bytes` what the store has under the name of the session's state, behind the server's back. */
async function replaceContent(bytes: Uint8Array): Promise<void> {
  inStore((index) =>
    index.prepare("UPDATE contents SET bytes = ? WHERE sha256 = ?").run(bytes, session.record.head.sha256),
  );
  // The one sandbox forgets the session, so that it is read.
  await server.post("/api/execute", { code: "1", files: "none" });
}

/** Makes `bytes` the session's state under their own name, while no server has it. */
async function replaceState(bytes: Uint8Array): Promise<void> {
  await server.stop(0);
  const head = { ...session.record.head, sha256: sha256(bytes).digest("hex"), size: bytes.length };
  inStore((index) => {
    const { id } = index.prepare("SELECT id FROM contents WHERE sha256 = ?").get(contentName) as { id: number };
    index
      .prepare("UPDATE contents SET bytes = ?, sha256 = ?, size = ? WHERE id = ?")
      .run(bytes, head.sha256, bytes.length, id);
    index
      .prepare("UPDATE sessions SET record = ? WHERE id = 'damaged'")
      .run(JSON.stringify({ ...session.record, head }));
  });
  contentName = head.sha256;
  server = await startTestServer(settings);
}

/** Of the content that is the session's state now. */
let contentName = "";

const execute = async () => await server.post("/api/execute", { code: "y[5]", session: "damaged", timeout: 2000 });

fuzz(
  "a damaged session of a running server: 409, with what can be restored",
  fc.asyncProperty(changes, async (changes) => {
    const bytes = damage(session.bytes, changes);
    await replaceContent(bytes);
    const reply = await execute();
    if (sha256(bytes).digest("hex") === session.record.head.sha256) {
      expect(reply.body).toMatchObject({ success: true, result: 1 });
      // It has run, and has another state now.
      session = storedSession();
      return;
    }
    expect(reply.status).toBe(409);
    expect(reply.body).toMatchObject({ code: "session_damaged", error: expect.stringContaining('"@previous"') });
  }),
);

fuzz(
  "a session of a server whose checksums are right: an error of the client's or some result, never a fault",
  fc.asyncProperty(changes, async (changes) => {
    const bytes = resealed(damage(session.bytes, changes));
    if (contentName === "") {
      await replaceContent(session.bytes);
      contentName = session.record.head.sha256;
    }
    await replaceState(bytes);
    const reply = await execute();
    expect(reply.status, JSON.stringify(reply.body).slice(0, 300)).toBeLessThan(500);
  }),
  // Each costs a start.
  { percent: 1 },
);
