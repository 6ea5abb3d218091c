import type { ExecutionResult } from "../../sandbox/outcome.ts";
import { type ExecutionContext, runCode, type Services } from "../../service/execution-service.ts";
import { ClientError } from "../../shared/errors.ts";
import { Slices } from "../../shared/json/json-members.ts";
import { JsonFragments } from "../../shared/json/json-parts.ts";
import { displayedData } from "../displayed-json.ts";
import { tracebackLines, withCutNote } from "../execution-limits.ts";

/** What its session outlives the cells by, where this server ends before it can delete it, s. */
const SPARE_S = 60;
/** JSON is no text there, unless it is none. */
const AS_KERNELS = { isJson: (type: string) => /[/+]json$/.test(type) };

export interface CellsRequest {
  readonly cells: readonly string[];
  /** Counts a cell as a request; the first is counted already. @throws {ClientError} 429 `rate_limited`: it and those after it do not run. */
  readonly count: () => Promise<void>;
  readonly cellTimeoutMs: number;
  readonly totalTimeoutMs: number;
  /** By their paths in the sandbox. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** Files that are wanted afterwards: name → path. */
  readonly wanted: ReadonlyMap<string, string>;
  /** Called with the bytes of all that are to be read, before each is; what it throws is thrown. */
  readonly onWanted: (bytes: number) => void;
}

export interface CellsRun {
  /** Of those that ran. */
  readonly cells: readonly JsonFragments[];
  /** All ran before the time was over. */
  readonly isOver: boolean;
  /** Why the rest did not run, if it is not for the time. */
  readonly refusal: ClientError | null;
  readonly timeMs: number;
  readonly files: ReadonlyMap<string, Uint8Array>;
}

/** Runs the cells of a notebook one after another in a session of their own, which is gone afterwards. A cell that fails does not stop the next. */
export async function runCells(
  services: Services,
  context: ExecutionContext,
  { cells, count, cellTimeoutMs, totalTimeoutMs, files, wanted, onWanted }: CellsRequest,
): Promise<CellsRun> {
  const { sessions, packages } = services;
  const principal = context.principal.id;
  const { environment } = await packages.environmentFor(principal, packages.defaultEnvironment);
  const { id } = await sessions.create(principal, { environment, ttlMs: totalTimeoutMs + SPARE_S * 1000 });
  const startedAt = performance.now();
  try {
    if (files.size > 0) await sessions.files.writeAll(principal, id, context.signal, files);
    const shown: JsonFragments[] = [];
    let leftMs = totalTimeoutMs;
    let refusal: ClientError | null = null;
    for (const code of cells) {
      if (leftMs <= 0) break;
      if (code.trim() === "") {
        shown.push(new JsonFragments({ stdout: "", stderr: "", display: [], error: [] }));
        continue;
      }
      if (shown.length > 0) refusal = await count().then(() => null, refused);
      if (refusal !== null) break;
      const timeout = Math.min(cellTimeoutMs, leftMs);
      // A kernel has the traceback in its error alone.
      const input = { code, session: id, timeout, display: "after-outputs", printTraceback: false } as const;
      const result = await runCode(services, input, context);
      leftMs -= result.executionTimeMs;
      shown.push(await toCell(result));
      if (result.status === "timeout" && timeout < cellTimeoutMs) leftMs = 0;
    }
    const contents = new Map<string, Uint8Array>();
    // One file under many names is read once, and so is one that is not there.
    const read = new Map<string, Uint8Array | null>();
    let wantedBytes = 0;
    const onSize = (bytes: number) => {
      wantedBytes += bytes;
      onWanted(wantedBytes);
    };
    for (const [name, path] of wanted) {
      if (!read.has(path)) read.set(path, await sessions.files.read(principal, id, path, onSize).catch(refuseOthers));
      const content = read.get(path) ?? null;
      if (content !== null) contents.set(name, content);
    }
    return {
      cells: shown,
      isOver: shown.length === cells.length && leftMs > 0,
      refusal,
      timeMs: performance.now() - startedAt,
      files: contents,
    };
  } finally {
    // The client may be gone by now.
    await sessions.delete(principal, id, new AbortController().signal).catch(expires);
  }
}

/** What cannot be deleted ends by itself. */
function expires(error: unknown): void {
  if (!(error instanceof ClientError)) throw error;
}

function refused(error: unknown): ClientError {
  if (error instanceof ClientError) return error;
  throw error;
}

/** A file that is not there is left out. */
function refuseOthers(error: unknown): null {
  if (error instanceof ClientError && error.code === "not_found") return null;
  throw error;
}

/** A result as a cell of a notebook; made while the event loop goes on. */
export async function toCell(result: ExecutionResult): Promise<JsonFragments> {
  const { stdout, outputs, display, errorInfo } = result;
  const traceback = errorInfo?.traceback ?? "";
  const shown: JsonFragments[] = [];
  // Code may display 64 MiB: others have their turn meanwhile.
  const slices = new Slices();
  for (const bundle of [...outputs, ...(display ? [display] : [])])
    shown.push(await displayedData(bundle, AS_KERNELS, slices));
  return new JsonFragments({
    stdout,
    stderr: withCutNote(result.stderr, result),
    display: shown,
    error: errorInfo
      ? [{ ename: errorInfo.type, evalue: errorInfo.message, traceback: tracebackLines(traceback) }]
      : [],
  });
}
