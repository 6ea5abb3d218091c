/**
 * A session at rest:
 *
 *     8 bytes   "PYEXSESS"
 *     u32 le    format version
 *     u32 le    length of the header, bytes
 *     header    JSON in UTF-8: see `header` below
 *     memory    what `load` takes (`wire/frames.ts`), contents of unnamed files included, compressed with zstd
 *     32 bytes  SHA-256 of all before
 *
 * Contents of files are not in it: the header lists them by hash, so that states of one session share them.
 */
import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { promisify } from "node:util";
import { constants, zstdCompress, zstdCompressSync, zstdDecompress } from "node:zlib";
import { z } from "zod";
import type { SessionState } from "../wire/guest-messages.ts";
import { sessionState } from "../wire/guest-messages.ts";
import { WorkspaceIndex } from "../workspaces/workspace-index.ts";

export const SESSION_VERSION = 4;
/** Of a session that works on a workspace: one of version 4 with `openFiles`, and without files of its own. */
export const WORKSPACE_SESSION_VERSION = 5;

const MAGIC = Buffer.from("PYEXSESS");
const PREFIX_BYTES = 16;
const CHECKSUM_BYTES = 32;
/** One block of memory and its number, as `load` takes them. */
const BYTES_PER_BLOCK = 256 + 4;
// Slower levels win little: most of it is zero, and the rest small objects that do not repeat.
const COMPRESSION = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
// 0.05 to 0.5 ms [measured]: the way to another thread and back takes longer.
const MAX_INLINE_BYTES = 512 * 1024;

/** What is hashed and copied in one turn of the event loop: of 128 MiB at once, others would wait for 100 ms. */
const BYTES_OF_A_TURN = 2 * 1024 * 1024;

const compress = promisify(zstdCompress);
const decompress = promisify(zstdDecompress);

/** Files that a session has open, by path, with the SHA-256 of their contents. */
export type OpenContents = ReadonlyMap<string, string>;

/** A session as it was after an execution. */
export interface SessionSnapshot {
  /** Identity of the environment's image that the memory differs from: no other can be put under it. */
  readonly environment: string;
  /** Null: nothing has run since the session began. */
  readonly state: SessionState | null;
  /** As `Sandbox.load` takes it; empty if `state` is null. */
  readonly memory: Uint8Array;
  /** Its own. */
  readonly files: WorkspaceIndex;
  /** Those of its principal's workspace that it has open: path → SHA-256 of what they held then. Null: it has files of its own. */
  readonly openFiles: OpenContents | null;
  /** Executions up to then. */
  readonly executions: number;
}

/** The bytes are no session, a damaged one, or one of another version; `message` says what is wrong. */
export class SessionFormatError extends Error {
  override readonly name = "SessionFormatError";
}

const count = z.number().int().nonnegative();

const header = z.object({
  environment: z.string(),
  executions: count,
  state: sessionState.nullable(),
  memoryBytes: count.max(2 ** 33),
  /** A `WorkspaceIndex`. */
  files: z.unknown(),
  openFiles: z.array(z.tuple([z.string(), z.string().regex(/^[0-9a-f]{64}$/)])).optional(),
});

/**
 * @returns the bytes, and their hash: what they are stored by.
 * @throws {SessionFormatError} if the sandbox that captured it described something impossible.
 */
export async function encodeSession(snapshot: SessionSnapshot): Promise<{ bytes: Buffer; sha256: string }> {
  const { environment, executions, memory, files, openFiles } = snapshot;
  const state = snapshot.state && sessionState.safeParse(snapshot.state);
  if (state?.success === false) throw new SessionFormatError(`its state is not one: ${firstIssue(state.error)}`);
  checkMemory(state?.data ?? null, memory.length);
  const facts: Omit<z.input<typeof header>, "files"> = {
    environment,
    executions,
    state: state?.data ?? null,
    memoryBytes: memory.length,
    ...(openFiles && { openFiles: [...openFiles] }),
  };
  // The index is JSON already.
  const headerBytes = Buffer.from(`${JSON.stringify(facts).slice(0, -1)},"files":${files.toJson("")}}`);
  const compressed =
    memory.length <= MAX_INLINE_BYTES ? zstdCompressSync(memory, COMPRESSION) : await compress(memory, COMPRESSION);
  const prefix = Buffer.alloc(PREFIX_BYTES);
  MAGIC.copy(prefix);
  prefix.writeUInt32LE(openFiles ? WORKSPACE_SESSION_VERSION : SESSION_VERSION, 8);
  prefix.writeUInt32LE(headerBytes.length, 12);
  const hash = createHash("sha256");
  const bytes = Buffer.allocUnsafe(prefix.length + headerBytes.length + compressed.length + CHECKSUM_BYTES);
  let size = 0;
  for (const part of [prefix, headerBytes, compressed]) {
    await inTurns(part, (piece) => {
      hash.update(piece);
      bytes.set(piece, size);
      size += piece.length;
    });
  }
  const checksum = hash.copy().digest();
  bytes.set(checksum, size);
  return { bytes, sha256: hash.update(checksum).digest("hex") };
}

/** @throws {SessionFormatError} naming the first thing that is wrong. */
export async function decodeSession(bytes: Uint8Array): Promise<SessionSnapshot> {
  const { facts, files, compressed } = await readHeader(bytes);
  let memory: Uint8Array;
  try {
    memory = await decompress(compressed, { maxOutputLength: Math.max(1, facts.memoryBytes) });
  } catch (cause) {
    throw new SessionFormatError("the memory cannot be decompressed", { cause });
  }
  if (memory.length !== facts.memoryBytes) throw new SessionFormatError("the memory is incomplete");
  const { environment, state, executions, openFiles } = facts;
  return { environment, state, memory, files, openFiles: openFiles ? new Map(openFiles) : null, executions };
}

/** The files alone: a session whose memory no longer fits an environment still has them. */
export async function decodeSessionFiles(bytes: Uint8Array): Promise<WorkspaceIndex> {
  return (await readHeader(bytes)).files;
}

async function readHeader(bytes: Uint8Array) {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (buffer.length < PREFIX_BYTES + CHECKSUM_BYTES) throw new SessionFormatError("it is cut off");
  if (!buffer.subarray(0, 8).equals(MAGIC)) throw new SessionFormatError("it is not a session");
  const version = buffer.readUInt32LE(8);
  if (version !== SESSION_VERSION && version !== WORKSPACE_SESSION_VERSION) {
    const read = `${SESSION_VERSION} and ${WORKSPACE_SESSION_VERSION}`;
    throw new SessionFormatError(`it has format version ${version}, and this server reads ${read}`);
  }
  const end = buffer.length - CHECKSUM_BYTES;
  const headerEnd = PREFIX_BYTES + buffer.readUInt32LE(12);
  if (headerEnd > end) throw new SessionFormatError("its header is cut off");
  const hash = createHash("sha256");
  await inTurns(buffer.subarray(0, end), (piece) => void hash.update(piece));
  if (!hash.digest().equals(buffer.subarray(end))) throw new SessionFormatError("its checksum is wrong");
  let facts: z.output<typeof header>;
  let files: WorkspaceIndex;
  try {
    facts = header.parse(JSON.parse(buffer.toString("utf8", PREFIX_BYTES, headerEnd)));
    files = WorkspaceIndex.parse(JSON.stringify(facts.files));
  } catch (cause) {
    throw new SessionFormatError("its header cannot be read", { cause });
  }
  if ((facts.openFiles !== undefined) !== (version === WORKSPACE_SESSION_VERSION)) {
    throw new SessionFormatError("its header does not fit its version");
  }
  checkMemory(facts.state, facts.memoryBytes);
  return { facts, files, compressed: buffer.subarray(headerEnd, end) };
}

/** Others are served between two pieces. */
async function inTurns(bytes: Uint8Array, take: (piece: Uint8Array) => void): Promise<void> {
  for (let start = 0; start < bytes.length; start += BYTES_OF_A_TURN) {
    if (start > 0) await setImmediate();
    take(bytes.subarray(start, start + BYTES_OF_A_TURN));
  }
}

function checkMemory(state: SessionState | null, memoryBytes: number): void {
  const unnamedBytes = state?.unnamed.reduce((sum, { bytes }) => sum + bytes, 0) ?? 0;
  if ((state?.blockCount ?? 0) * BYTES_PER_BLOCK + unnamedBytes !== memoryBytes) {
    throw new SessionFormatError("its memory does not fit its state");
  }
}

function firstIssue(error: z.ZodError): string {
  const [issue] = error.issues;
  return `${issue?.path.join(".")}: ${issue?.message}`;
}
