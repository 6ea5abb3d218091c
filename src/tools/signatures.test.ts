import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { toolOf, toolSet } from "./definitions.ts";
import { checkSchema } from "./json-schema.ts";
import { MAX_STEPS, SchemaReader } from "./schema-reader.ts";
import { MAX_SIGNATURE_CHARACTERS, signatureOf } from "./signatures.ts";
import { stubsOf } from "./stubs.ts";

type Schema = Record<string, unknown>;

/** Steps that it takes to work a signature out. */
function stepsOf(written: Schema): number {
  // As it comes from a client: no object stands in two places.
  const schema = JSON.parse(JSON.stringify(written));
  checkSchema(schema);
  const reader = new SchemaReader(schema);
  signatureOf(schema, reader);
  return reader.steps;
}

/** Places in a schema where another stands. */
function placesIn(value: unknown): number {
  if (typeof value !== "object" || value === null) return 1;
  return Object.values(value).reduce((sum: number, one) => sum + placesIn(one), 1);
}

/** `d0`, of `width` references to `d1`, and so on. */
function layers(depth: number, width: number, keyword = "anyOf"): Schema {
  const one = (n: number) =>
    n === depth ? { type: "string" } : { [keyword]: Array(width).fill({ $ref: `#/$defs/d${n + 1}` }) };
  return Object.fromEntries(Array.from({ length: depth + 1 }, (_, n) => [`d${n}`, one(n)]));
}

describe("the work is in proportion to the schema, however often it refers to itself:", () => {
  test.each([["anyOf"], ["oneOf"]])("%s of references to the same", (keyword) => {
    for (const [depth, width] of [
      [6, 9],
      [6, 300],
      [40, 40],
    ] as const) {
      const schema = { properties: { x: { $ref: "#/$defs/d0" } }, $defs: layers(depth, width, keyword) };
      expect(stepsOf(schema)).toBeLessThanOrEqual(3 * placesIn(schema));
    }
  });

  test("many properties that refer to the end of a chain", () => {
    const properties = Object.fromEntries(Array.from({ length: 1000 }, (_, n) => [`p${n}`, { $ref: "#/$defs/d0" }]));
    const link = (n: number) => (n === 14 ? { type: "string" } : { $ref: `#/$defs/d${n + 1}`, title: `${n}` });
    const $defs = Object.fromEntries(Array.from({ length: 15 }, (_, n) => [`d${n}`, link(n)]));
    // Of each property its annotation, whether it takes null, and its reference: each of them and one link further.
    expect(stepsOf({ properties, $defs })).toBeLessThan(5 * 1000 + 100);
  });

  test("trees that hold themselves in many ways", () => {
    const $defs = Object.fromEntries(
      Array.from({ length: 30 }, (_, n) => [
        `n${n}`,
        {
          type: "array",
          items: { anyOf: Array.from({ length: 30 }, (_, m) => ({ $ref: `#/$defs/n${m}` })) },
        },
      ]),
    );
    const schema = { properties: { x: { $ref: "#/$defs/n0" } }, $defs };
    // Each depth is worked out once.
    expect(stepsOf(schema)).toBeLessThanOrEqual(8 * placesIn(schema));
  });

  test("references beside which something else stands", () => {
    const one = (n: number) =>
      n === 6
        ? { type: "string" }
        : {
            anyOf: Array.from({ length: 100 }, (_, m) => ({
              $ref: `#/$defs/d${n + 1}`,
              type: "string",
              title: `${m}`,
            })),
          };
    const $defs = Object.fromEntries(Array.from({ length: 7 }, (_, n) => [`d${n}`, one(n)]));
    const schema = { properties: { x: { $ref: "#/$defs/d0" } }, $defs };
    expect(stepsOf(schema)).toBeLessThanOrEqual(4 * placesIn(schema));
  });

  test("any schema", () => {
    const { schema } = fc.letrec<{ schema: Schema }>((tie) => ({
      schema: fc.oneof(
        { maxDepth: 4, withCrossShrink: true },
        fc.constantFrom<Schema>(
          { type: "string" },
          { type: "null" },
          { enum: ["a", null] },
          { type: ["null", "array"] },
        ),
        fc.integer({ min: 0, max: 7 }).map((n): Schema => ({ $ref: `#/$defs/d${n}` })),
        fc.array(tie("schema"), { maxLength: 6 }).map((anyOf): Schema => ({ anyOf })),
        fc.integer({ min: 0, max: 7 }).map((n): Schema => ({ $ref: `#/$defs/d${n}`, type: ["string", "null"] })),
        tie("schema").map((items): Schema => ({ type: "array", items })),
        tie("schema").map((additionalProperties): Schema => ({ type: "object", additionalProperties })),
      ),
    }));
    const defs = fc.array(schema, { minLength: 8, maxLength: 8 });
    fc.assert(
      fc.property(defs, fc.array(schema, { maxLength: 5 }), (list, inner) => {
        const $defs = Object.fromEntries(list.map((one, n) => [`d${n}`, one]));
        const root = { properties: Object.fromEntries(inner.map((one, n) => [`p${n}`, one])), $defs };
        try {
          checkSchema(root);
        } catch {
          return;
        }
        expect(stepsOf(root)).toBeLessThanOrEqual(17 * placesIn(root));
      }),
      { numRuns: 300 },
    );
  });

  test("no more than so many steps, whatever leads there", () => {
    const members = Array.from({ length: MAX_STEPS }, () => ({ type: "null" }));
    const reader = new SchemaReader({ anyOf: members });
    expect(reader.annotationOf({ anyOf: members })).toBe("Any");
    expect(reader.annotationOf({ type: "string" })).toBe("Any");
    expect(reader.takesNull({ type: "string" })).toBe(true);
    expect(reader.steps).toBeLessThan(MAX_STEPS + 10);
  });
});

test("a long chain of references is refused, and one of fifteen is followed", () => {
  const chain = (length: number) => ({
    properties: { x: { $ref: "#/$defs/d0" } },
    $defs: Object.fromEntries(
      Array.from({ length }, (_, n) => [
        `d${n}`,
        n === length - 1 ? { type: "string" } : { $ref: `#/$defs/d${n + 1}` },
      ]),
    ),
  });
  const set = (length: number) => toolSet([{ name: "t", parameters: chain(length) }]);
  expect(set(16).get("t")?.signature.parameters).toMatchObject([{ annotation: "str" }]);
  expect(() => set(17)).toThrow(/leads through more than 16 references/);
  // A chain longer than the stack is deep, and a circle, which is told as one.
  expect(() => set(5000)).toThrow(/leads through more than 16 references/);
  expect(() =>
    toolSet([{ name: "t", parameters: { $defs: { a: { $ref: "#/$defs/b" }, b: { $ref: "#/$defs/a" } } } }]),
  ).toThrow(/leads back to itself/);
});

test("what references repeat is bounded: of one tool, of all, and in their stubs", () => {
  const tool = (name: string, count: number, what: Schema) => ({
    name,
    parameters: {
      properties: Object.fromEntries(Array.from({ length: count }, (_, n) => [`p${n}`, { $ref: "#/$defs/d" }])),
      $defs: { d: what },
    },
  });
  const long = "x".repeat(20_000);
  for (const what of [{ description: long }, { default: long }, { default: [long] }]) {
    expect(() => toolSet([tool("t", 100, what)])).toThrow(
      /what its references repeat has more than 1048576 characters/,
    );
    const several = Array.from({ length: 8 }, (_, n) => tool(`t${n}`, 10, what));
    expect(() => toolSet(several)).toThrow(/signatures may have 1048576 characters together/);
    const singly = several.map((one) => toolOf(one));
    expect(() => stubsOf(singly, "sync")).toThrow(/signatures may have 1048576 characters together/);
    expect(stubsOf(singly.slice(0, 2), "sync").length).toBeLessThan(MAX_SIGNATURE_CHARACTERS);
  }
});

test("a type that is listed a thousand times is one", () => {
  const type = Array(1000).fill(["string", "null"]).flat();
  const parameters = { properties: { x: { type, ...Object.fromEntries(type.map((_, n) => [`x-${n}`, n])) } } };
  expect(toolSet([{ name: "t", parameters }]).get("t")?.signature.parameters).toMatchObject([
    { annotation: "str | None", nullable: true },
  ]);
});
