import { describe, expect, test } from "vitest";
import { type Attack, each } from "./attack.ts";
import { JAVASCRIPT } from "./attacks/javascript.ts";
import { library, libraryAttack } from "./attacks/libraries.ts";
import { NEIGHBOURS } from "./attacks/neighbours.ts";
import { INTRUDER, type Layer, Mutant, withoutLayers } from "./mutant.ts";
import { write } from "./scoreboard.ts";
import { Stock } from "./stock.ts";
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
  const target = await Target.start({ CACHE_DIR: mutant.cacheDir }, mutant.folder);
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
  const answering =
    library(`(module (import "env" "memory" (memory 1)) (import "env" "__memory_base" (global $base i32))
    (global (export "__em_js__pwn") i32 (i32.const 0)) (data (global.get $base) "(void)<::>{}; Date.now = () => 42000\\00"))`);
  const cases: { layer: Layer; broken: Layer[]; attack: Attack }[] = [
    { layer: "seal", broken: [], attack: libraryAttack("that exports what the interpreter uses", "ctypes.CDLL") },
    { layer: "seal", broken: ["references"], attack: walk },
    { layer: "references", broken: ["seal"], attack: walk },
    {
      layer: "code-generation",
      broken: ["seal", "realm"],
      attack: {
        name: "code in a library",
        context: { library: answering.toString("base64") },
        code: "import base64, ctypes, time\nopen('/tmp/e.so', 'wb').write(base64.b64decode(library))\nctypes.CDLL('/tmp/e.so')\nif time.time() == 42: print(won)",
      },
    },
    { layer: "read-only-files", broken: [], attack: named(NEIGHBOURS.attacks, '"/lib/sandbox_runner/execution.py"') },
    { layer: "rewind", broken: [], attack: named(NEIGHBOURS.attacks, "builtins.stolen") },
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
    using mutant = new Mutant([...INTRUDER.worker, ...withoutLayers(["realm"])]);
    const { succeeded } = await visit(mutant, "lookingAround", "auto");
    expect(succeeded).toEqual(expect.arrayContaining(["offers fetch", "offers Worker", "offers postMessage"]));
  });

  test("code-generation, for an attacker in JavaScript", async () => {
    using mutant = new Mutant([...INTRUDER.worker, ...withoutLayers(["code-generation"])]);
    expect((await visit(mutant, "fromStrings", "auto")).succeeded).toContain("constructsFunctions");
  });

  test("nonce", async () => {
    using mutant = new Mutant([...INTRUDER.worker, ...withoutLayers(["nonce"])]);
    const { result, won } = await visit(mutant, "forge", "auto");
    expect(result).toBe(won);
  });
});

test.skipIf(!wanted)("in Pyodide as it comes many of the attacks succeed", { timeout: 1_800_000 }, async () => {
  const stock = await Stock.open();
  let total = 0;
  for (const { title, attacks } of TECHNIQUES) {
    // What these do to the host that runs them is not for a machine that others use.
    if (["exhaustion and crashes", "the next execution", "forged frames"].includes(title)) continue;
    let succeeded = 0;
    for (const attack of attacks) if (await stock.attack(attack)) succeeded++;
    write({ technique: title, layers: "stock Pyodide in Node", tried: attacks.length, succeeded });
    total += succeeded;
  }
  await stock.close();
  expect(total).toBeGreaterThan(25);
});
