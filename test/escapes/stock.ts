import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Attack } from "./attack.ts";
import { Bait } from "./target.ts";

const TIMEOUT_MS = 5000;

/** Runs attacks in Pyodide as it comes, each on the same bait as the server's. A process that one has ruined is replaced. */
export class Stock {
  readonly #folder: string;
  readonly #bait: Bait;
  #process: ChildProcess | undefined;
  #lines: AsyncIterator<string> | undefined;

  private constructor(folder: string, bait: Bait) {
    this.#folder = folder;
    this.#bait = bait;
  }

  static async open(): Promise<Stock> {
    const folder = mkdtempSync(path.join(os.tmpdir(), "stock-"));
    return new Stock(folder, await Bait.lay(folder));
  }

  /** @returns whether the attack got at the host, or at JavaScript. */
  async attack({ code, context, proof = "reply" }: Attack): Promise<boolean> {
    const won = `won-${this.#bait.secret}`;
    const marker = this.#bait.newMarker();
    const prize = { won, marker, secret_file: this.#bait.secretFile, port: this.#bait.port, pid: 2 ** 30 };
    const lines = await this.#start();
    this.#process?.stdin?.write(`${JSON.stringify({ code, context: { ...prize, ...context } })}\n`);
    const timer = setTimeout(() => this.#process?.kill("SIGKILL"), TIMEOUT_MS);
    const { value } = await lines.next();
    clearTimeout(timer);
    if (value === undefined) await this.#end();
    const text: string = value === undefined ? "" : JSON.parse(value).text;
    const seen = this.#bait.takeConnections() > 0 || existsSync(marker) || text.includes(this.#bait.secret);
    return seen || (proof === "reply" && text.includes(won));
  }

  async close(): Promise<void> {
    await this.#end();
    this.#bait.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #start(): Promise<AsyncIterator<string>> {
    if (this.#lines) return this.#lines;
    const script = fileURLToPath(new URL("stock-host.ts", import.meta.url));
    this.#process = spawn(process.execPath, [script], {
      cwd: this.#folder,
      env: { PATH: process.env.PATH, SECRET: this.#bait.secret },
      stdio: ["pipe", "pipe", "ignore"],
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
