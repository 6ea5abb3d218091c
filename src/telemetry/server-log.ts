import fs from "node:fs";
import path from "node:path";
import pino, { type Logger } from "pino";
import { escapeControls } from "../security-log/event.ts";
import { makeFolderSync } from "../shared/make-folder.ts";

export interface ServerLogOptions {
  readonly level: string;
  /** Folder of `server.log`; empty: standard output only. */
  readonly dir: string;
  /** Begin a new file rather than let one grow over this. Five old ones are kept, `server.log.1` the newest. */
  readonly maxBytes: number;
  /** One short line for people on standard output instead of JSON; the file is JSON always. */
  readonly pretty?: boolean;
  /** Where the lines for standard output go; default `process.stdout`. */
  readonly stdout?: { write(line: string): unknown };
}

export interface ServerLog {
  readonly logger: Logger;
  /** Absolute path of `server.log`; null without a folder. */
  readonly file: string | null;
  close(): void;
}

const OLD_FILES = 5;

/** Keys whose values are never written, at the top of what is logged and up to two levels below. */
const SECRET_KEYS = ["authorization", "x-api-key", "cookie", "set-cookie", "apiKey", "password", "secret", "token"];
const redactPaths = [...SECRET_KEYS, "API_KEY", "API_KEYS"].flatMap((key) =>
  ["", "*", "*.*"].map((parent) => `${parent}["${key}"]`),
);

/** Opens the server's log: JSON lines with `level`, `timestamp` and `msg` to standard output and to `server.log`. */
export function openServerLog({ level, dir, maxBytes, pretty, stdout = process.stdout }: ServerLogOptions): ServerLog {
  // The reader of stdout may go away: without a listener that would end the server.
  if (stdout === process.stdout) process.stdout.on("error", () => {});
  const file = dir === "" ? null : path.join(dir, "server.log");
  const rotating = file === null ? undefined : new RotatingFile(file, maxBytes);
  const logger = pino(
    {
      level,
      base: null,
      timestamp: () => `,"timestamp":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: redactPaths, censor: "[redacted]" },
    },
    {
      write(json: string) {
        const line = `${escapeControls(json.trimEnd())}\n`;
        stdout.write(pretty ? forPeople(line) : line);
        rotating?.write(line);
      },
    },
  );
  return { logger, file, close: () => rotating?.close() };
}

/** Writes synchronously: to the page cache in a few µs, so that the last lines before a crash are there, too. */
class RotatingFile {
  readonly #file: string;
  readonly #maxBytes: number;
  #fd: number | null = null;
  #sizeBytes = 0;

  constructor(file: string, maxBytes: number) {
    this.#file = file;
    this.#maxBytes = maxBytes;
  }

  write(line: string): void {
    const bytes = Buffer.from(line);
    try {
      this.#fd ??= this.#open();
      if (this.#sizeBytes > 0 && this.#sizeBytes + bytes.length > this.#maxBytes) {
        this.#rotate();
        this.#fd = this.#open();
      }
      this.#sizeBytes += bytes.length;
      fs.writeFileSync(this.#fd, bytes);
    } catch {
      // The line is on standard output; that the folder cannot be written to is told by the security log beside it.
      this.close();
    }
  }

  close(): void {
    if (this.#fd !== null) fs.close(this.#fd, () => {});
    this.#fd = null;
  }

  #open(): number {
    makeFolderSync(path.dirname(this.#file), 0o700);
    const fd = fs.openSync(this.#file, "a", 0o600);
    this.#sizeBytes = fs.fstatSync(fd).size;
    return fd;
  }

  #rotate(): void {
    this.close();
    for (let i = OLD_FILES - 1; i >= 1; i--) {
      if (fs.existsSync(`${this.#file}.${i}`)) fs.renameSync(`${this.#file}.${i}`, `${this.#file}.${i + 1}`);
    }
    fs.renameSync(this.#file, `${this.#file}.1`);
  }
}

function forPeople(line: string): string {
  const { level, timestamp, msg, ...rest } = JSON.parse(line) as Record<string, unknown>;
  const details = Object.keys(rest).length > 0 ? ` ${escapeControls(JSON.stringify(rest))}` : "";
  const text = escapeControls(JSON.stringify(msg ?? "")).slice(1, -1);
  return `${String(timestamp).slice(11, 19)} ${String(level).toUpperCase().padEnd(5)} ${text}${details}\n`;
}
