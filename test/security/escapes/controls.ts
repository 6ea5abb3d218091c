import { existsSync } from "node:fs";
import type { Attack, Control, Technique } from "./attack.ts";
import { withoutLayers } from "./layers.ts";
import { Mutant } from "./mutant.ts";
import { Stock } from "./stock.ts";
import { Target } from "./target.ts";

/** What a mutant may take for anything before it counts as having been stopped. */
const PATIENCE_MS = 45_000;

/** Whether this machine can run attacks under a control. `native` needs bubblewrap to keep the machine whole. */
export function isPossible(control: Control): boolean {
  return control !== "native" || (existsSync("/usr/bin/bwrap") && existsSync("/usr/bin/python3"));
}

/** Names of those of a technique's attacks that succeed where something that stops them is missing. */
export async function succeedUnder(
  control: Control,
  technique: Technique,
  attacks: readonly Attack[],
): Promise<ReadonlySet<string>> {
  const succeeded = new Set<string>();
  await using place = typeof control === "string" ? await outside(control) : inMutant(technique, control);
  for (const attack of attacks) if (await place.attack(attack)) succeeded.add(attack.name);
  return succeeded;
}

interface Place extends AsyncDisposable {
  attack(attack: Attack): Promise<boolean>;
}

async function outside(kind: "stock" | "native"): Promise<Place> {
  const stock = await Stock.open(kind);
  return {
    // What needs a server has nothing to attack here.
    attack: async (attack) => attack.act === undefined && (await stock.attack(attack)),
    [Symbol.asyncDispose]: () => stock.close(),
  };
}

function inMutant({ settings, files }: Technique, layers: Exclude<Control, string>): Place {
  const mutant = new Mutant(withoutLayers(layers));
  let target: Target | null = null;
  const start = async () => {
    const options = { settings: { ...settings, CACHE_DIR: mutant.cacheDir }, files, source: mutant.folder };
    const started = await Target.start(options);
    await started.rememberNormal();
    return started;
  };
  const stop = async () => {
    await target?.stop("SIGKILL");
    target = null;
  };
  return {
    async attack(attack) {
      target ??= await start();
      const success = await unlessItTakesLong(target.attack(attack), "not well");
      // What it has changed would make every attack after it a success.
      if (success === "not well") await stop();
      else if (success !== null && (await unlessItTakesLong(target.endSandboxes(), "not well"))) await stop();
      return success !== null;
    },
    async [Symbol.asyncDispose]() {
      await stop();
      mutant[Symbol.dispose]();
    },
  };
}

/** @returns `otherwise` where that fails, or is not done in time. */
async function unlessItTakesLong<T, O>(done: Promise<T>, otherwise: O): Promise<T | O> {
  const late = Promise.withResolvers<O>();
  const timer = setTimeout(late.resolve, PATIENCE_MS, otherwise);
  const result = await Promise.race([done.catch(() => otherwise), late.promise]);
  clearTimeout(timer);
  return result;
}
