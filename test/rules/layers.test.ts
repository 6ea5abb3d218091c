import { expect, test } from "vitest";
import { INTRUDER, LAYERS, TAMPERING } from "../security/escapes/layers.ts";
import { assertFits } from "../security/escapes/mutant.ts";

test("each layer that the controls replace is in the source: an export, a method, an import", () => {
  const all = [...Object.values(LAYERS).flat(), ...Object.values(INTRUDER).flat(), ...TAMPERING];
  expect(all.length).toBeGreaterThan(40);
  for (const replacement of all) assertFits(replacement);
});

test("what is not in the source is refused", () => {
  const file = "sandbox/nonce.ts";
  for (const wrong of [
    { file, exports: { noSuchExport: "() => 0" } },
    { file, methods: { "NoClass.method": "() => 0" } },
    { file, imports: { "node:crypto": { noSuchName: "() => 0" } } },
    { file, imports: { "node:nothing": { randomBytes: "() => 0" } } },
    { file, text: [["not in it", ""]] as const },
  ])
    expect(() => assertFits(wrong)).toThrow(/has not, or not once/);
});
