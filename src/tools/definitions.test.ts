import { describe, expect, test } from "vitest";
import { JsonText } from "../shared/json/json-text.ts";
import { isQuick, mismatch } from "./argument-check.ts";
import { type ToolDefinition, toolSet } from "./definitions.ts";
import { toIdentifier } from "./python-names.ts";

const named = (name: string): ToolDefinition => ({ name });
const withSchema = (parameters: Record<string, unknown>): ToolDefinition => ({ name: "t", parameters });
const pythonNames = (...names: string[]) =>
  Array.from(toolSet(names.map(named)).values(), ({ signature }) => signature.name);

describe("names", () => {
  test.each([
    ["print", "print"],
    ["a-b", "a_b"],
    ["get user", "get_user"],
    ["github.search/issues", "github_search_issues"],
    ["class", "class_tool"],
    ["None", "None_tool"],
    ["3d", "_3d"],
    ["größe", "größe"],
    ["ﬁle", "file"],
    ["match", "match"],
    ["🐍x", "_x"],
  ])("%j is %j in Python", (name, python) => expect(pythonNames(name)).toEqual([python]));

  test.each(["__import__", "__class__", "--", "🐍", "_", "__"])("%j cannot be one", (name) => {
    expect(() => toolSet([named(name)])).toThrow(/cannot have a name in Python/);
    expect(toIdentifier(name, "_tool")).toBeNull();
  });

  test("that become one are refused, and so are two of one name and a variable's", () => {
    expect(() => toolSet([named("a-b"), named("a_b")])).toThrow(
      'The tool "a_b" would be called a_b in Python, and so would the tool "a-b".',
    );
    expect(() => toolSet([named("class"), named("class_tool")])).toThrow(/and so would/);
    expect(() => toolSet([named("x"), named("x")])).toThrow('There are two tools called "x".');
    expect(() => toolSet([named("x")], ["x"])).toThrow(/a variable of the context/);
  });
});

describe("schemas that are refused", () => {
  const nested = (depth: number): Record<string, unknown> =>
    depth === 0 ? {} : { type: "object", properties: { a: nested(depth - 1) } };

  test.each<[string, Record<string, unknown>, RegExp]>([
    ["none of an object", { type: "string" }, /none of an object/],
    ["an unknown type", { properties: { a: { type: "text" } } }, /\/properties\/a\/type is none of null, boolean/],
    ["a property that is no schema", { properties: { a: 7 } }, /\/properties\/a is no schema/],
    ["required that is no list", { required: "a" }, /\/required is no list of names/],
    ["a pattern that is none", { properties: { a: { pattern: "(" } } }, /is no regular expression/],
    ["a bound that is no number", { properties: { a: { maximum: "9" } } }, /is no number/],
    ["a count below zero", { properties: { a: { minLength: -1 } } }, /is no count/],
    ["a reference to nothing", { properties: { a: { $ref: "#/$defs/A" } } }, /refers to nothing/],
    ["a reference to elsewhere", { $ref: "http://127.0.0.1/schema.json" }, /refers to nothing/],
    [
      "a reference to what is no schema",
      { properties: { a: { $ref: "#/examples/0" } }, examples: [{ type: 7 }] },
      /no schema/,
    ],
    ["a base of its own", { $id: "http://x.test/" }, /may not have \$id/],
    ["a reference to itself", { $ref: "#" }, /leads back to itself/],
    [
      "references in a circle",
      {
        $ref: "#/$defs/a",
        $defs: { a: { anyOf: [{ type: "null" }, { $ref: "#/$defs/b" }] }, b: { not: { $ref: "#/$defs/a" } } },
      },
      /leads back to itself/,
    ],
    ["one that is too deep", nested(60), /deeper than 48/],
    ["two parameters that become one", { properties: { "a-b": {}, a_b: {} } }, /both a_b in Python/],
    ["a parameter that can have no name", { properties: { __proto: {}, __x__: {} } }, /can have no name/],
    ["an old draft", { dependencies: { a: ["b"] } }, /old draft/],
  ])("%s", (_what, schema, message) => {
    expect(() => toolSet([withSchema(schema)])).toThrow(message);
  });

  test("of a megabyte, and too many of them", () => {
    expect(() => toolSet([withSchema({ description: "x".repeat(2 ** 20) })])).toThrow(/262144 characters/);
    expect(() => toolSet(Array.from({ length: 129 }, (_, n) => named(`t${n}`)))).toThrow(/At most 128/);
  });

  test("but not one of a tree, whose references lead down into the value", () => {
    const tree = { type: "object", properties: { children: { type: "array", items: { $ref: "#" } } } };
    expect(toolSet([withSchema(tree)]).get("t")?.signature.parameters).toMatchObject([{ annotation: "list[dict]" }]);
  });
});

test("a signature has what a call needs first, then the others, with types and defaults", () => {
  const { signature } = toolSet([
    withSchema({
      type: "object",
      properties: {
        limit: { type: "integer", default: 10 },
        sql: { type: "string", description: "Text." },
        "first-name": { type: ["string", "null"] },
        kind: { enum: ["a", "b", null] },
        rows: { type: "array", items: { $ref: "#/$defs/row" } },
        map: { type: "object", additionalProperties: { type: "number" } },
        any: true,
      },
      required: ["sql", "other"],
      $defs: { row: { type: "object" } },
    }),
  ]).get("t") as { signature: unknown } as never;
  const parameters = (signature as { parameters: { name: string; annotation: string; required: boolean }[] })
    .parameters;
  expect(parameters.map(({ name, annotation, required }) => `${name}: ${annotation}${required ? "" : " = "}`)).toEqual([
    "sql: str",
    "other: Any",
    "limit: int = ",
    "first_name: str | None = ",
    'kind: Literal["a", "b", None] = ',
    "rows: list[dict] = ",
    "map: dict[str, float] = ",
    "any: Any = ",
  ]);
});

test.each([
  ["one long", { a: { pattern: "a".repeat(8_001) } }],
  [
    "many short",
    Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`p${i}`, { pattern: `^[a-z]{1,${i + 10}}x{20}$` }])),
  ],
  ["names", { a: { patternProperties: { [`^${"b".repeat(8_000)}`]: true } } }],
  ["Unicode classes", { a: { pattern: "\\p{L}".repeat(201) } }],
])("regular expressions are bounded for all tools together: %s", (_, properties) => {
  expect(() => toolSet([withSchema({ properties })])).toThrow(/regular expressions/);
});

test("as many regular expressions as are bounded may be in several tools", () => {
  const definitions = (count: number) =>
    Array.from({ length: count }, (_, i) => ({
      ...withSchema({ properties: { a: { pattern: "x".repeat(1_000) } } }),
      name: `t${i}`,
    }));
  expect(toolSet(definitions(8)).size).toBe(8);
  expect(() => toolSet(definitions(9))).toThrow(/8000 characters together/);
});

test("a name is no longer than it can be normalised at once; plain ones may be", () => {
  const named = (name: string) => () => toolSet([withSchema({ properties: { [name]: {} } })]);
  expect(named("é".repeat(255))).not.toThrow();
  expect(named(`a${"\u0315\u0300".repeat(128)}`)).toThrow(/can have no name in Python/);
  expect(named("a".repeat(20_000))).not.toThrow();
});

test("only what takes a few ms is checked in place", () => {
  const isInPlace = (parameters: Record<string, unknown>, bytes: number) => {
    const tool = toolSet([withSchema(parameters)]).get("t");
    return tool !== undefined && isQuick(tool, bytes);
  };
  const small = { properties: { a: { type: "string" } } };
  expect([isInPlace(small, 100), isInPlace(small, 10_000), isInPlace(small, 100_000)]).toEqual([true, true, false]);
  // Paths of schemas are made of all names above them.
  expect(isInPlace({ properties: { ["k".repeat(20_000)]: {} } }, 2)).toBe(false);
  // Others than ASCII's are escaped in them, up to nine characters for one.
  expect(isInPlace({ properties: { é: {} } }, 2)).toBe(false);
  expect(isInPlace({ properties: { [`a${"{".repeat(5_000)}`]: {} } }, 2)).toBe(false);
  for (const a of [{ anyOf: [true] }, { enum: [1] }, { const: 1 }, { prefixItems: [true] }, { oneOf: [true] }])
    expect(isInPlace({ properties: { a } }, 2)).toBe(false);
});

describe("arguments", () => {
  const check = async (parameters: Record<string, unknown>, value: unknown) => {
    const tool = toolSet([withSchema(parameters)]).get("t");
    if (!tool) throw new Error("there is no tool");
    return await mismatch("anyone", tool, JsonText.of(value));
  };

  test.each<[Record<string, unknown>, unknown, string | null]>([
    [{ properties: { a: { type: "string" } } }, { a: "x" }, null],
    [
      { properties: { a: { type: "string" } } },
      { a: 7 },
      'argument a: Instance type "number" is invalid. Expected "string"',
    ],
    [{ properties: { a: { type: "integer", minimum: 3 } } }, { a: 2 }, "argument a: 2 is less than 3"],
    [{ properties: { a: { anyOf: [{ type: "string" }, { type: "null" }] } } }, { a: null }, null],
    [
      { properties: { a: { $ref: "#/$defs/b" } }, $defs: { b: { type: "boolean" } } },
      { a: 1 },
      'argument a: Instance type "number" is invalid. Expected "boolean"',
    ],
    [{ properties: { a: { pattern: "^x+$" } } }, { a: "y" }, "argument a: String does not match pattern"],
    [
      { properties: { constructor: { type: "string" } }, required: ["constructor"] },
      {},
      "Instance does not have required property",
    ],
  ])("%j: %j", async (schema, value, message) => {
    const found = await check({ type: "object", ...schema }, value);
    if (message === null) expect(found).toBeNull();
    else expect(found).toContain(message.replace(/\.$/, ""));
  });

  test.each<[string, Record<string, unknown>, unknown]>([
    ["a pattern that backtracks for ever", { properties: { a: { pattern: "^(a+)+$" } } }, { a: `${"a".repeat(60)}!` }],
    [
      "references that double at each step",
      {
        $ref: "#/$defs/d0",
        $defs: Object.fromEntries([
          ...Array.from({ length: 40 }, (_, n) => [
            `d${n}`,
            { anyOf: [{ $ref: `#/$defs/d${n + 1}` }, { $ref: `#/$defs/d${n + 1}` }] },
          ]),
          ["d40", false],
        ]),
      },
      {},
    ],
  ])("that a schema never comes to an end with (%s) hold up nothing else", async (_what, schema, value) => {
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    try {
      // Of the two that end it, time and memory, one comes first.
      expect(await check(schema, value)).toMatch(/^has a schema that (takes too long to check|cannot be applied)$/);
      expect(turns).toBeGreaterThan(10);
    } finally {
      clearInterval(timer);
    }
    // The thread is another one by now.
    expect(await check({ properties: { a: { pattern: "^x$" } } }, { a: "x" })).toBeNull();
  });
});
