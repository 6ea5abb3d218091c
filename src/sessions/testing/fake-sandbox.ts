import { FakeSandbox, RESIDENT, turn } from "../../executor/testing/fake-sandbox.ts";
import type { Execution } from "../../sandbox/outcome.ts";
import type { Capture, Job } from "../../sandbox/running-job.ts";
import { JsonText } from "../../shared/json/json-text.ts";
import type { SessionState, Verdict } from "../../wire/guest-messages.ts";
import type { FileListing } from "../../wire/messages.ts";
import type { SessionSandbox } from "../run.ts";

/** What the code of a test does. `stuck`: what it leaves cannot be captured. `lost`: the interpreter cannot go on. `dies`: the process ends under it. */
export interface FakeProgram {
  readonly adds: number;
  readonly end: "well" | "stuck" | "lost" | "dies";
  readonly turns: number;
  /** Reads these files, and writes the number to the first. Its value is then an object of all. */
  readonly files?: readonly string[];
}

/** What a program says that has files. */
export interface FakeValue {
  readonly memory: readonly number[];
  /** What each file held before. */
  readonly seen: readonly (string | null)[];
}

/** An interpreter whose whole memory is a list of numbers: a program adds one, and its value is the list. */
export class FakeSessionSandbox extends FakeSandbox implements SessionSandbox {
  /** Null: no session is on it. */
  memory: number[] | null = null;
  captured: Promise<Capture> = Promise.resolve({ state: null, reason: "nothing ran" });
  /** Its files; null: the host has the content. */
  readonly #files = new Map<string, string | null>();

  async load(
    capture: { readonly state: SessionState; readonly memory: Uint8Array } | null,
    files?: FileListing,
  ): Promise<Verdict> {
    this.#files.clear();
    for (const { path, kind } of files?.entries ?? []) if (kind === "file") this.#files.set(path, null);
    const settle = this.begin();
    await turn();
    this.memory = capture ? JSON.parse(Buffer.from(capture.memory).toString()) : [];
    settle(RESIDENT);
    return await this.idle;
  }

  async execute(job: Job): Promise<Execution> {
    const settle = this.begin();
    const capture = Promise.withResolvers<Capture>();
    this.captured = capture.promise;
    const { adds, end, turns, files } = JSON.parse(job.message.program.code) as FakeProgram;
    const seen: (string | null)[] = [];
    for (const file of files ?? []) seen.push(await this.#read(file, job));
    for (let i = 0; i < turns && this.endReason === null && !job.signal?.aborted; i++) await turn();
    if (end === "dies") this.kill("out of memory");
    if (job.signal?.aborted) this.kill("it did not stop");
    if (this.endReason !== null) {
      capture.resolve({ state: null, reason: this.endReason });
      return executed(JsonText.null, true);
    }
    const memory = [...(this.memory ?? []), adds];
    this.memory = memory;
    void this.#settle(end, settle, capture.resolve);
    const [path] = files ?? [];
    if (path === undefined) return executed(JsonText.of(memory), false);
    const content = Buffer.from(String(adds));
    this.#files.set(path, String(adds));
    const written = [{ path, kind: "file" as const, size: content.length, mtimeMs: adds }];
    const value: FakeValue = { memory, seen };
    return {
      ...executed(JsonText.of(value), false),
      files: { changes: { written, deleted: [] }, contents: [content] },
    };
  }

  async #read(file: string, job: Job): Promise<string | null> {
    const content = this.#files.get(file);
    if (content !== null) return content ?? null;
    const call = job.calls()["read-file"];
    const answer = await call?.answer(file, new AbortController().signal);
    const text = Buffer.from(answer?.body ?? []).toString();
    this.#files.set(file, text);
    return text;
  }

  async #settle(
    end: FakeProgram["end"],
    settle: (verdict: Verdict) => void,
    resolve: (capture: Capture) => void,
  ): Promise<void> {
    await turn();
    if (this.endReason !== null) resolve({ state: null, reason: this.endReason });
    else if (end === "well") resolve(captureOf(this.memory as number[]));
    else resolve({ state: null, reason: "a thread runs" });
    if (end === "lost") settle({ state: "discard", reason: "it cannot go on" });
    else settle(RESIDENT);
  }

  override async rewind(): Promise<Verdict> {
    this.memory = null;
    return await super.rewind();
  }
}

function captureOf(list: readonly number[]): Capture {
  const memory = Buffer.from(JSON.stringify(list));
  const content = { kind: "file" as const, bytes: memory.length, mode: 0o100644, mtimeMs: 0 };
  const state: SessionState = {
    heapBytes: 0,
    blockCount: 0,
    currentPath: "/home/pyodide",
    nextInode: 1,
    clockMs: 0,
    streams: [],
    mappings: [],
    unnamed: [content],
    links: [],
  };
  return { state, memory };
}

function executed(value: JsonText, killed: boolean): Execution {
  return {
    result: {
      success: !killed,
      status: killed ? "sandbox_died" : "completed",
      result: value,
      error: killed ? "The sandbox process ended before the execution did." : null,
      stdout: "",
      stderr: "",
      outputs: [],
      executionTimeMs: 1,
      cpuTimeMs: null,
      truncated: false,
      executionCount: null,
    },
    files: killed ? null : { changes: { written: [], deleted: [] }, contents: [] },
  };
}
