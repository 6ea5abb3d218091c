import { expect, test, vi } from "vitest";
import { z } from "zod";
import { parseBody } from "./validation.ts";

const NAMES = Array.from({ length: 8 }, (_, index) => `member${index}`);
/** Every choice of members. */
const CHOICES = Array.from({ length: 2 ** NAMES.length }, (_, choice) =>
  Object.fromEntries(NAMES.flatMap((name, index) => ((choice >> index) & 1 ? [[name, index]] : []))),
);
const makeSchema = () =>
  z.object({
    code: z.string("No code."),
    ...Object.fromEntries(NAMES.map((name) => [name, z.int("No integer.").optional()])),
  });

test("members are read the same, however many choices of them came before", () => {
  const schema = makeSchema();
  for (const chosen of CHOICES) {
    expect(parseBody(schema, { code: "1", ...chosen, other: true })).toStrictEqual({ code: "1", ...chosen });
  }
  expect(() => parseBody(schema, { code: "1", member6: "six", member7: 7 })).toThrow("No integer.");
  expect(() => parseBody(schema, { member1: 1, member3: 3, member7: 7 })).toThrow("No code.");
});

test("a client cannot have any number of choices kept", () => {
  const schema = makeSchema();
  const pick = vi.spyOn(schema, "pick");
  for (const chosen of CHOICES) parseBody(schema, { code: "1", ...chosen });
  expect(pick).toHaveBeenCalledTimes(64);
});
