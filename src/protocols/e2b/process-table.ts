import { HttpError } from "../../http/http-error.ts";
import { ClientError } from "../../shared/errors.ts";
import { type MessageStream, toEnvelope } from "./connect.ts";

const MAX_OF_PRINCIPAL = 64;
/** Streams of one command: each is sent all that it prints. */
const MAX_FOLLOWERS = 64;
const FIRST_PID = 1000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export interface ProcessConfig {
  readonly cmd: string;
  readonly args: readonly string[];
  readonly envs: Readonly<Record<string, string>>;
  readonly cwd?: string | undefined;
  readonly tag?: string | undefined;
}

/** How a process has ended: with a status, or because it could not run. */
export type Ended = { readonly exitCode: number; readonly error?: string } | { readonly failure: ClientError };

/** A command that runs. */
export class Process {
  readonly pid: number;
  readonly config: ProcessConfig;
  readonly #abort = new AbortController();
  readonly #onEnd: () => void;
  readonly #followers = new Set<MessageStream>();
  readonly #ended = Promise.withResolvers<Ended>();
  readonly #timer: NodeJS.Timeout | undefined;
  #killed: Ended = { exitCode: -1, error: "signal: killed" };

  /** @param deadline by `performance.now`; infinite: it has none. */
  constructor(pid: number, config: ProcessConfig, deadline: number, onEnd: () => void) {
    this.pid = pid;
    this.config = config;
    this.#onEnd = onEnd;
    const leftMs = deadline - performance.now();
    if (leftMs <= LONGEST_TIMER_MS) this.#timer = setTimeout(() => this.#expire(), leftMs).unref();
  }

  /** Aborted when it is to end. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** How it has ended, if that was by its signal. */
  get killed(): Ended {
    return this.#killed;
  }

  kill(how: "killed" | "terminated"): void {
    this.#killed = { exitCode: -1, error: `signal: ${how}` };
    this.#stop();
  }

  print(stream: "stdout" | "stderr", text: string): void {
    if (this.#followers.size === 0) return;
    const data = { [stream]: Buffer.from(text).toString("base64") };
    const envelope = toEnvelope({ event: { data } });
    for (const follower of this.#followers) follower.write(envelope);
  }

  end(ended: Ended): void {
    clearTimeout(this.#timer);
    this.#onEnd();
    this.#ended.resolve(ended);
  }

  /** Sends what it prints from now on, and how it ends; until the client goes, which leaves it running. @throws {ClientError} 429 */
  async follow(stream: MessageStream, gone: AbortSignal): Promise<void> {
    if (this.#followers.size >= MAX_FOLLOWERS)
      throw new HttpError(429, "bad_request", `At most ${MAX_FOLLOWERS} connections may follow a command`);
    stream.send({ event: { start: { pid: this.pid } } });
    this.#followers.add(stream);
    const left = new Promise<null>((resolve) => gone.addEventListener("abort", () => resolve(null), { once: true }));
    const ended = await Promise.race([this.#ended.promise, left]);
    this.#followers.delete(stream);
    if (ended === null) return;
    if ("failure" in ended) throw ended.failure;
    const { exitCode, error } = ended;
    const status = error ?? `exit status ${exitCode}`;
    const shown = exitCode === 0 ? {} : { error: status };
    stream.send({ event: { end: { exitCode, exited: error === undefined, status, ...shown } } });
  }

  #expire(): void {
    this.#killed = { failure: new HttpError(504, "bad_request", "the command's time is over") };
    this.#stop();
  }

  #stop(): void {
    this.#abort.abort(new ClientError("interrupted"));
  }
}

/** The commands that run on this server, by their sandbox. */
export class Processes {
  readonly #running = new Map<string, { readonly principal: string; readonly processes: Map<number, Process> }>();
  #lastPid = FIRST_PID;

  /** @throws {ClientError} 429 */
  start(principal: string, sandbox: string, config: ProcessConfig, deadline: number): Process {
    const own = [...this.#running.values()].filter((entry) => entry.principal === principal);
    if (own.reduce((sum, { processes }) => sum + processes.size, 0) >= MAX_OF_PRINCIPAL)
      throw new HttpError(429, "bad_request", `At most ${MAX_OF_PRINCIPAL} commands may run at a time`);
    const entry = this.#running.get(sandbox) ?? { principal, processes: new Map<number, Process>() };
    this.#running.set(sandbox, entry);
    const pid = ++this.#lastPid;
    const process = new Process(pid, config, deadline, () => {
      entry.processes.delete(pid);
      if (entry.processes.size === 0 && this.#running.get(sandbox) === entry) this.#running.delete(sandbox);
    });
    entry.processes.set(pid, process);
    return process;
  }

  list(principal: string, sandbox: string): readonly Process[] {
    const entry = this.#running.get(sandbox);
    return entry?.principal === principal ? [...entry.processes.values()] : [];
  }

  /** @throws {ClientError} 404 */
  get(
    principal: string,
    sandbox: string,
    { pid, tag }: { pid?: number | undefined; tag?: string | undefined },
  ): Process {
    const found = this.list(principal, sandbox).find(
      (process) => process.pid === pid || (tag !== undefined && process.config.tag === tag),
    );
    if (!found) throw new ClientError("not_found", `process ${pid ?? JSON.stringify(tag ?? "")} not found`);
    return found;
  }

  killAll(): void {
    for (const { processes } of this.#running.values())
      for (const process of processes.values()) process.kill("terminated");
  }
}
