import { lookup, Resolver } from "node:dns/promises";
import { readFile } from "node:fs/promises";
import { SerialQueue } from "../shared/serial-queue.ts";
import { SingleFlight } from "../shared/single-flight.ts";
import { NetworkFailure, toFailure } from "./failure.ts";

export interface ResolvedAddress {
  readonly address: string;
  readonly family: number;
}

const HOSTS_FILE = "/etc/hosts";
/** Of one question to a name server, ms; it is asked once more. */
const QUESTION_TIMEOUT_MS = 5_000;
const QUESTIONS = 2;

/** How names are looked up; tests have name servers of their own. */
export interface NameSources {
  readonly newResolver: () => Pick<Resolver, "resolve4" | "resolve6" | "cancel">;
  readonly system: (host: string) => Promise<readonly ResolvedAddress[]>;
  readonly hostsFile: () => Promise<string>;
}

const OF_THIS_MACHINE: NameSources = {
  newResolver: () => new Resolver({ timeout: QUESTION_TIMEOUT_MS, tries: QUESTIONS }),
  system: (host) => lookup(host, { all: true }),
  hostsFile: () => readFile(HOSTS_FILE, "utf8").catch(() => ""),
};

/**
 * The addresses of names that user code asks for.
 *
 * The system's own look-up cannot be cancelled, and has a few threads, which the server's own names need as well: a name whose name server is
 * silent keeps one for half a minute. So it is for names that no stranger answers for, one at a time; all others are asked of the name servers
 * directly, and a look-up that none waits for is over.
 */
export class Names {
  readonly #sources: NameSources;
  readonly #lookups = new SingleFlight<readonly ResolvedAddress[]>();
  readonly #queue = new SerialQueue();

  constructor(sources: Partial<NameSources> = {}) {
    this.#sources = { ...OF_THIS_MACHINE, ...sources };
  }

  /**
   * @param isListed the operator has named this very host, which may be known to this machine alone.
   * @param signal aborting it ends the look-up.
   * @throws {NetworkFailure} `name`, if there is none; `timeout`, if it was stopped.
   */
  async find(host: string, isListed: boolean, signal: AbortSignal): Promise<readonly ResolvedAddress[]> {
    const isOwn = isListed || !host.includes(".") || namesIn(await this.#sources.hostsFile()).has(host);
    if (signal.aborted) throw stopped();
    return isOwn ? await this.#ofThisMachine(host, signal) : await this.#ask(host, signal);
  }

  async #ofThisMachine(host: string, signal: AbortSignal): Promise<readonly ResolvedAddress[]> {
    const find = (stop: AbortSignal) =>
      this.#queue.run(() => {
        stop.throwIfAborted();
        return this.#sources.system(host);
      });
    try {
      return await this.#lookups.run(host, find, signal);
    } catch (error) {
      throw signal.aborted ? stopped() : toFailure(error, host);
    }
  }

  async #ask(host: string, signal: AbortSignal): Promise<readonly ResolvedAddress[]> {
    const resolver = this.#sources.newResolver();
    const cancel = () => resolver.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    try {
      const [four, six] = await Promise.allSettled([resolver.resolve4(host), resolver.resolve6(host)]);
      if (signal.aborted) throw stopped();
      const found = [
        ...(four.status === "fulfilled" ? four.value.map((address) => ({ address, family: 4 })) : []),
        ...(six.status === "fulfilled" ? six.value.map((address) => ({ address, family: 6 })) : []),
      ];
      if (found.length > 0) return found;
      const isKnown = [four, six].some(
        (answer) =>
          answer.status === "rejected" && NO_SUCH_NAME.has((answer.reason as NodeJS.ErrnoException).code ?? ""),
      );
      throw toFailure({ code: isKnown ? "ENOTFOUND" : "EAI_AGAIN" }, host);
    } finally {
      signal.removeEventListener("abort", cancel);
    }
  }
}

const NO_SUCH_NAME: ReadonlySet<string> = new Set(["ENOTFOUND", "ENODATA"]);

function stopped(): NetworkFailure {
  return new NetworkFailure("timeout", "the request was stopped");
}

/** Names in a file of hosts. */
function namesIn(hosts: string): ReadonlySet<string> {
  return new Set(
    hosts
      .split("\n")
      .flatMap((line) => (line.split("#", 1)[0] as string).trim().split(/\s+/).slice(1))
      .map((name) => name.toLowerCase()),
  );
}
