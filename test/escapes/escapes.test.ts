import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Target } from "./target.ts";
import { TECHNIQUES } from "./techniques.ts";

let target: Target;
beforeAll(async () => {
  target = await Target.start();
  await target.rememberNormal();
});
afterAll(() => target.stop());

describe.each(TECHNIQUES)("$title", ({ attacks }) => {
  test.each(attacks)("$name", async (attack) => {
    expect(await target.attack(attack)).toBeNull();
  });
});

test("the log has every attack in one unbroken chain, and no secret", async () => {
  await target.checkLogs();
});
