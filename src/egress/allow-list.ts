import { isIP } from "node:net";
import { StartupError } from "../shared/errors.ts";
import { normaliseHost } from "./target.ts";

const DEFAULT_PORTS: ReadonlySet<number> = new Set([80, 443]);

interface Entry {
  /** Of the name after `*.`, the dot included; null: `host` itself. */
  readonly suffix: string | null;
  readonly host: string;
  /** Null: 80 and 443. */
  readonly port: number | null;
}

/** What an entry may look like, for the errors that say so. */
export const ALLOWED_HOST_FORM = "Write names as api.example.com, *.data.gov or api.example.com:8443";

const notInSetting = (text: string) =>
  new StartupError(`NETWORK_ALLOW: ${JSON.stringify(text)} is not a host. ${ALLOWED_HOST_FORM}.`);

/** The hosts that NETWORK_ALLOW, or `allowOut`, names. */
export class AllowList {
  readonly #entries: readonly Entry[];

  /**
   * @param entries `api.example.com`, `*.data.gov` (its subdomains, not `data.gov` itself), `*` (every host); each may end in
   * `:port`, and stands for ports 80 and 443 where it does not.
   * @param problem the error for an entry that is none of these; default: a {@link StartupError}.
   * @throws what `problem` makes.
   */
  constructor(entries: readonly string[], problem: (entry: string) => Error = notInSetting) {
    this.#entries = entries.map((entry) => parseEntry(entry, () => problem(entry)));
  }

  get isEmpty(): boolean {
    return this.#entries.length === 0;
  }

  /** @param host as `normaliseHost` returns it. */
  allows(host: string, port: number): boolean {
    return this.#entries.some(
      (entry) =>
        (entry.port === null ? DEFAULT_PORTS.has(port) : entry.port === port) &&
        (entry.suffix === null
          ? entry.host === host
          : entry.suffix === "" || (host.endsWith(entry.suffix) && isIP(host) === 0)),
    );
  }

  /** Whether an entry is this very host, on whichever port. */
  lists(host: string): boolean {
    return this.#entries.some((entry) => entry.suffix === null && entry.host === host);
  }
}

function parseEntry(text: string, problem: () => Error): Entry {
  const match = /^(\*\.)?(\[[0-9a-f:.]+\]|[^\s:/?#@[\]*]+|(?<!\.)\*)(?::(\d{1,5}))?$/iu.exec(text);
  if (match === null) throw problem();
  const [, wildcard, name = "", digits] = match;
  const port = digits === undefined ? null : Number(digits);
  if (port !== null && (port < 1 || port > 65_535)) throw problem();
  if (name === "*") {
    if (wildcard) throw problem();
    return { suffix: "", host: "", port };
  }
  const host = normaliseHost(name);
  if (host === null || (wildcard && isIP(host) !== 0)) throw problem();
  return { suffix: wildcard ? `.${host}` : null, host, port };
}
