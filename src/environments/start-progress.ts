/** `packages`: they are sought and fetched. `archive`: they are unpacked and compiled. `image`: an interpreter imports them. */
export type BuildStep = "packages" | "archive" | "image";

/** How far an environment is. Names no package: the readiness of a server is public. */
export interface EnvironmentProgress {
  readonly name: string;
  readonly state: "waiting" | "building" | "ready" | "failed";
  /** While it is being built. */
  readonly step?: BuildStep;
  /** Since its building began. */
  readonly seconds?: number;
  readonly downloadedBytes?: number;
}

interface Entry {
  state: EnvironmentProgress["state"];
  step: BuildStep;
  beganAtMs: number;
  /** Bytes of each file. */
  readonly downloads: Map<string, number>;
}

/** How far a starting server is with the environments that are defined. */
export class StartProgress {
  readonly #entries: ReadonlyMap<string, Entry>;

  constructor(names: readonly string[]) {
    const entry = (): Entry => ({ state: "waiting", step: "packages", beganAtMs: 0, downloads: new Map() });
    this.#entries = new Map(names.map((name) => [name, entry()]));
  }

  begin(name: string, step: BuildStep): void {
    const entry = this.#entries.get(name);
    if (entry?.state !== "waiting") return;
    Object.assign(entry, { state: "building", step, beganAtMs: performance.now() });
  }

  step(name: string, step: BuildStep): void {
    const entry = this.#entries.get(name);
    if (entry) entry.step = step;
  }

  downloaded(name: string, filename: string, bytes: number): void {
    this.#entries.get(name)?.downloads.set(filename, bytes);
  }

  end(name: string, state: "ready" | "failed"): void {
    const entry = this.#entries.get(name);
    if (entry) entry.state = state;
  }

  /** It is defined, and neither ready nor given up. */
  isPending(name: string): boolean {
    const state = this.#entries.get(name)?.state;
    return state === "waiting" || state === "building";
  }

  list(): readonly EnvironmentProgress[] {
    return Array.from(this.#entries, ([name, { state, step, beganAtMs, downloads }]) => {
      if (state !== "building") return { name, state };
      const downloadedBytes = [...downloads.values()].reduce((sum, bytes) => sum + bytes, 0);
      const seconds = Math.round((performance.now() - beganAtMs) / 100) / 10;
      return { name, state, step, seconds, ...(downloadedBytes > 0 && { downloadedBytes }) };
    });
  }
}
