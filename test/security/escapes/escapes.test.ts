import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Attack } from "./attack.ts";
import { write } from "./scoreboard.ts";
import { Target } from "./target.ts";
import { TECHNIQUES } from "./techniques.ts";

/** `npm run test:escapes` tries all. Within `npm test` there is time for an even sample of each technique. */
const SAMPLE = process.env.ESCAPES_ALL === "1" ? Number.POSITIVE_INFINITY : 6;

function sampled(attacks: readonly Attack[]): readonly Attack[] {
  const step = Math.max(1, attacks.length / SAMPLE);
  return attacks.filter((_, index) => Math.floor(index / step) !== Math.floor((index - 1) / step));
}

describe.each(TECHNIQUES)("$title", ({ title, attacks, settings, files }) => {
  let target: Target;
  let tried = 0;
  let succeeded = 0;
  beforeAll(async () => {
    target = await Target.start({ settings, files });
    await target.rememberNormal();
  });
  test.each(sampled(attacks))("$name", async (attack) => {
    tried++;
    succeeded++;
    expect(await target.attack(attack)).toBeNull();
    succeeded--;
  });
  test("the log has every attack in one unbroken chain, and no secret", async () => {
    await target.checkLogs();
  });
  afterAll(async () => {
    await target.stop();
    write({ technique: title, layers: "all", tried, succeeded });
  });
});
