import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { temporaryFolder } from "../../../src/shared/testing/temporary-folder.ts";
import type { Attack } from "./attack.ts";
import { Bait } from "./target.ts";

const TIMEOUT_MS = 4000;
const REPLY = '{"text":';
/** Enough for every attack that is to succeed, and little enough for those that take all there is. */
const MAX_HEAP = ["--max-old-space-size=512", "--wasm-max-mem-pages=8192"];

const script = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/** What runs the attacks in place of a sandbox: lines of JSON in, lines of JSON out. */
const HOSTS = {
  /** Pyodide as it comes, in Node. */
  stock: () => [process.execPath, ...MAX_HEAP, script("stock-host.ts")],
  /** The machine's own Python. Around it is only what keeps this machine whole: no file but the bait's can be written. */
  native: (folder: string) => [
    ...[
      "bwrap",
      "--ro-bind",
      "/",
      "/",
      "--tmpfs",
      "/tmp",
      "--bind",
      folder,
      folder,
      "--dev",
      "/dev",
      "--proc",
      "/proc",
    ],
    ...["--unshare-pid", "--new-session", "--die-with-parent", "prlimit", "--as=4000000000", "--nproc=4000"],
    ...["/usr/bin/python3", "-u", "-c", readFileSync(script("native-host.py"), "utf8")],
  ],
} as const;

/** Runs attacks where nobody stops them, each on the same bait as the server's. A process that one has ruined is replaced. */
export class Stock {
  readonly #kind: keyof typeof HOSTS;
  readonly #folder: string;
  readonly #bait: Bait;
  #process: ChildProcess | undefined;
  #lines: AsyncIterator<string> | undefined;

  private constructor(kind: keyof typeof HOSTS, folder: string, bait: Bait) {
    this.#kind = kind;
    this.#folder = folder;
    this.#bait = bait;
  }

  static async open(kind: keyof typeof HOSTS): Promise<Stock> {
    const folder = temporaryFolder("stock");
    return new Stock(kind, folder, await Bait.lay(folder));
  }

  /** @returns whether the attack got at the host, or at JavaScript, or ended or held the process where that is its aim. */
  async attack({ code, context, proof = "reply", denial }: Attack): Promise<boolean> {
    const won = `won-${this.#bait.secret}`;
    const marker = this.#bait.newMarker();
    const prize = { won, marker, secret_file: this.#bait.secretFile, port: this.#bait.port };
    const more = { redirect_port: this.#bait.redirectPort, pid: 2 ** 30 };
    const lines = await this.#start();
    this.#process?.stdin?.write(`${JSON.stringify({ code, context: { ...prize, ...more, ...context } })}\n`);
    const timer = setTimeout(() => this.#process?.kill("SIGKILL"), TIMEOUT_MS);
    let text = "";
    let ended = false;
    for (;;) {
      const { value } = await lines.next();
      if (value === undefined) {
        ended = true;
        await this.#end();
        break;
      }
      // What a command of the host printed comes between.
      const line = String(value);
      const at = line.indexOf(REPLY);
      text += line;
      if (at >= 0) break;
    }
    clearTimeout(timer);
    const seen = this.#bait.takeConnections() > 0 || existsSync(marker) || text.includes(this.#bait.secret);
    return seen || (proof === "reply" && text.includes(won)) || (denial === true && ended);
  }

  async close(): Promise<void> {
    await this.#end();
    this.#bait.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #start(): Promise<AsyncIterator<string>> {
    if (this.#lines) return this.#lines;
    const [command = "", ...args] = HOSTS[this.#kind](this.#folder);
    this.#process = spawn(command, args, {
      cwd: this.#folder,
      env: { PATH: process.env.PATH, SECRET: this.#bait.secret },
      stdio: ["pipe", "pipe", "ignore"],
      // In a group of its own: an attack may signal all of it.
      detached: true,
    });
    this.#process.stdin?.on("error", () => {});
    const lines = createInterface({ input: this.#process.stdout as NodeJS.ReadableStream })[Symbol.asyncIterator]();
    await lines.next();
    this.#lines = lines;
    return lines;
  }

  async #end(): Promise<void> {
    const child = this.#process;
    this.#lines = this.#process = undefined;
    if (!child) return;
    child.kill("SIGKILL");
    if (child.exitCode === null && child.signalCode === null) await once(child, "close");
  }
}
