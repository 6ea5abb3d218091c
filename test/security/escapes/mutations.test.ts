import { describe, expect, test } from "vitest";
import { type Attack, each } from "./attack.ts";
import { JAVASCRIPT } from "./attacks/javascript.ts";
import { NEIGHBOURS } from "./attacks/neighbours.ts";
import { isPossible, succeedUnder } from "./controls.ts";
import { INTRUDER, type Layer, withoutLayers } from "./layers.ts";
import { Mutant } from "./mutant.ts";
import { write } from "./scoreboard.ts";
import { Target } from "./target.ts";
import { TECHNIQUES } from "./techniques.ts";
import { visit } from "./visit.ts";

/**
 * Takes out one layer at a time, to see that the tests notice: `npm run test:escapes -- --mutations`. Where another layer
 * stops the attack as well, that one is assumed to be broken in both runs.
 */
const wanted = process.env.ESCAPES_MUTATIONS === "1";

async function attackMutant(layers: readonly Layer[], attack: Attack): Promise<string | null> {
  using mutant = new Mutant(withoutLayers(layers));
  const target = await Target.start({ settings: { CACHE_DIR: mutant.cacheDir }, source: mutant.folder });
  try {
    await target.rememberNormal();
    return await target.attack(attack);
  } catch (error) {
    return `the check after it failed: ${error instanceof Error ? error.message : error}`;
  } finally {
    await target.stop();
  }
}

const named = (attacks: readonly Attack[], part: string): Attack => {
  const found = attacks.find(({ code }) => code.includes(part));
  if (!found) throw new Error(`no attack has ${part}`);
  return found;
};

const SLOT = "import ctypes\nslot = ctypes.cast(ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1), ctypes.c_void_p).value\n";

describe.skipIf(!wanted)("without one layer an attack succeeds", { timeout: 300_000 }, () => {
  const walk = named(JAVASCRIPT.attacks, "queue.extend");
  const cases: { layer: Layer; broken: Layer[]; attack: Attack }[] = [
    // A library is not loaded without it either: Emscripten's list of them is frozen.
    { layer: "seal", broken: ["references"], attack: walk },
    { layer: "references", broken: ["seal"], attack: walk },
    // "code-generation": no library is loaded any more that could ask for it; an attacker in JavaScript shows it, below.
    {
      layer: "read-only-files",
      broken: [],
      attack: named(NEIGHBOURS.attacks, '"/lib/importlib_bootstrap/sandbox_runner/execution.py"'),
    },
    { layer: "rewind", broken: [], attack: named(NEIGHBOURS.attacks, "builtins.stolen") },
    { layer: "written-pages", broken: [], attack: named(NEIGHBOURS.attacks, "builtins.stolen") },
    { layer: "file-reset", broken: [], attack: named(NEIGHBOURS.attacks, "/plots/left") },
  ];

  test.each(cases)("$layer (broken as well: $broken)", async ({ layer, broken, attack }) => {
    expect(await attackMutant(broken, attack)).toBeNull();
    const success = await attackMutant([...broken, layer], attack);
    write({
      technique: `mutation: without ${[...broken, layer].join(" and ")}`,
      layers: "the others",
      tried: 1,
      succeeded: success === null ? 0 : 1,
    });
    expect(success).not.toBeNull();
  });

  test("state-check", async () => {
    const pristine = await Target.start();
    const slot = (await pristine.run(`${SLOT}slot`)).body.result as number;
    await pristine.stop();
    const [attack] = each([`${SLOT}keep = [ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1) for _ in range(50)]`], {
      next: `${SLOT}if slot != ${slot}: print(won)`,
    }) as [Attack];
    expect(await attackMutant([], attack)).toBeNull();
    expect(await attackMutant(["state-check"], attack)).not.toBeNull();
  });

  test("realm", async () => {
    using mutant = new Mutant([...INTRUDER.main, ...withoutLayers(["realm"])]);
    const { succeeded } = await visit(mutant, "lookingAround", "auto");
    expect(succeeded).toEqual(expect.arrayContaining(["offers fetch", "offers Worker", "offers setTimeout"]));
  });

  test("frozen-realm", async () => {
    using mutant = new Mutant([...INTRUDER.main, ...withoutLayers(["frozen-realm"])]);
    const { succeeded } = await visit(mutant, "changing", "auto");
    expect(succeeded).toEqual(
      expect.arrayContaining(["changes Object.prototype", "changes Array.prototype", "changes Promise.prototype"]),
    );
  });

  test("code-generation, for an attacker in JavaScript", async () => {
    using mutant = new Mutant([...INTRUDER.main, ...withoutLayers(["code-generation"])]);
    expect((await visit(mutant, "fromStrings", "auto")).succeeded).toContain("constructsFunctions");
  });

  test("nonce", async () => {
    using mutant = new Mutant([...INTRUDER.main, ...withoutLayers(["nonce"])]);
    const { result, won } = await visit(mutant, "forge", "auto");
    expect(result).toBe(won);
  });
});

/**
 * For each attack, one place where it succeeds: without it a 0 would say nothing. Which techniques' (all of them take an hour):
 * `-t "succeeds where"`.
 */
describe.skipIf(!wanted)("every attack", { timeout: 3_600_000 }, () => {
  test.each(TECHNIQUES)("succeeds where what stops it is missing: $title", async (technique) => {
    const { title, attacks, controls } = technique;
    let left = attacks.filter(({ noControl }) => noControl === undefined);
    for (const control of controls.filter(isPossible)) {
      const succeeded = await succeedUnder(control, technique, left);
      left = left.filter(({ name }) => !succeeded.has(name));
    }
    const excused = attacks.filter(({ noControl }) => noControl !== undefined).length;
    const layers = "with a control that succeeds";
    write({ technique: title, layers, tried: attacks.length, succeeded: attacks.length - excused - left.length });
    expect(left.map(({ name }) => name)).toEqual([]);
  });
});
