/** The thread that waits for the disk for `DiskSessions`. It is told what to do in batches, one at a time. */
import { parentPort, workerData } from "node:worker_threads";
import { ClientError, type ErrorCode } from "../shared/errors.ts";
import { type Dropped, type Outcome, type SessionChange, SessionDatabase, type SessionQuery } from "./database.ts";
import type { SessionShares } from "./shares.ts";

export interface ThreadOptions {
  readonly file: string;
  readonly shares: SessionShares;
}

/** Changes are made first, and durable before any of the batch is answered. */
export interface Batch {
  readonly changes: readonly SessionChange[];
  readonly queries: readonly SessionQuery[];
}

export interface Answers {
  readonly changes: readonly Outcome<Dropped>[];
  readonly queries: readonly Outcome<unknown>[];
}

/** First: whether the database is open, and the files that it refers to. */
export type Opened = Outcome<{ readonly files: readonly string[] }>;

/** An error between threads: of its own class only plain data would arrive. */
export type PlainError =
  | { readonly client: { readonly code: ErrorCode; readonly message: string } }
  | { readonly message: string; readonly code: string | undefined; readonly errcode: number | undefined };

/** Nothing has been asked for so long: a pause. */
const PAUSE_MS = 100;

if (parentPort !== null) {
  const port = parentPort;
  const { file, shares } = workerData as ThreadOptions;
  const opened = attempt(() => new SessionDatabase(file, shares));
  if ("value" in opened) {
    const database = opened.value;
    let pause: NodeJS.Timeout | undefined;
    const rest = () => {
      const more = attempt(() => database.rest());
      if ("value" in more && more.value) pause = setTimeout(rest, PAUSE_MS).unref();
    };
    port.on("message", (batch: Batch | "close") => {
      clearTimeout(pause);
      if (batch === "close") {
        attempt(() => database.close());
        port.close();
        return;
      }
      const changes = database.change(batch.changes).map(plain);
      const queries = batch.queries.map((query) => attempt(() => database.query(query)));
      port.postMessage({ changes, queries } satisfies Answers);
      pause = setTimeout(rest, PAUSE_MS).unref();
    });
    port.postMessage({ value: { files: database.files() } } satisfies Opened);
  } else {
    port.postMessage(opened satisfies Opened);
    port.close();
  }
}

function attempt<T>(action: () => T): Outcome<T> {
  try {
    return { value: action() };
  } catch (error) {
    return plain({ error });
  }
}

function plain<T>(outcome: Outcome<T>): Outcome<T> {
  if (!("error" in outcome)) return outcome;
  const { error } = outcome;
  return { error: plainError(error) };
}

function plainError(error: unknown): PlainError {
  if (error instanceof ClientError) {
    const { code, message } = error;
    return { client: { code, message } };
  }
  const { message, code, errcode } = error as { message: string; code?: string; errcode?: number };
  return { message, code, errcode };
}
