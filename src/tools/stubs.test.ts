import { expect, test } from "vitest";
import { stubsOf } from "./stubs.ts";

test("tools as a stub file", () => {
  const row = {
    type: "object",
    properties: { id: { type: "integer" }, next: { $ref: "#/$defs/row" } },
    required: ["id"],
  };
  const stubs = stubsOf(
    [
      {
        name: "query-db",
        description: 'Runs "SQL".\nSlowly \\ surely.',
        parameters: {
          type: "object",
          properties: {
            limit: { type: "integer", default: 10 },
            sql: { type: "string", description: "The\nstatement." },
            options: { type: "object", properties: { "dry-run": { type: "boolean", default: true } } },
            tags: { type: "array", items: { type: "string" }, default: ["a", null, true, { x: 1.5 }] },
            later: { type: "string" },
          },
          required: ["sql"],
        },
        returns: { type: "array", items: { $ref: "#/$defs/row" }, $defs: { row } },
      },
      { name: "anything" },
      { name: "ping", parameters: { type: "object", additionalProperties: false, properties: {} } },
    ],
    "async",
  );
  expect(stubs).toBe(
    `from typing import Any, Literal, NotRequired, TypedDict

QueryDbOptions = TypedDict("QueryDbOptions", {"dry-run": NotRequired[bool]})

class QueryDbResult(TypedDict):
    id: int
    next: NotRequired[QueryDbResult]

async def query_db(sql: str, limit: int = 10, options: QueryDbOptions = ..., tags: list[str] = ["a", None, True, {"x": 1.5}], later: str = ...) -> list[QueryDbResult]:
    """Runs \\"SQL\\".
    Slowly \\\\ surely.

    Arguments:
        limit: 
        sql: The statement.
    """

async def anything(**arguments: Any) -> Any: ...

async def ping() -> Any: ...
`
      .replace("        limit: \n", "")
      .replace('statement.\n    """', 'statement."""'),
  );
});

test("what two tools call the same is one class where it is the same, and two where it is not", () => {
  const tool = (name: string, type: string) => ({
    name,
    parameters: {
      properties: { row: { $ref: "#/$defs/row" } },
      $defs: { row: { type: "object", title: "Row", properties: { id: { type } } } },
    },
  });
  const stubs = stubsOf([tool("a", "integer"), tool("b", "integer"), tool("c", "string")], "sync");
  expect(stubs.match(/class .*\n.*|def .*\(.*\)/g)).toEqual([
    "class Row(TypedDict):\n    id: NotRequired[int]",
    "class Row2(TypedDict):\n    id: NotRequired[str]",
    "def a(row: Row = ...)",
    "def b(row: Row = ...)",
    "def c(row: Row2 = ...)",
  ]);
});

test("a stub file grows no faster than its schemas: names of classes are short, and one title has any number of them", () => {
  const members = Object.fromEntries(
    Array.from({ length: 500 }, (_, n) => [`m${n}`, { type: "object", properties: { x: { type: "string" } } }]),
  );
  const parameters = {
    properties: { ["k".repeat(50_000)]: { type: "object", title: "T".repeat(50_000), properties: members } },
  };
  expect(stubsOf([{ name: "t", parameters }], "sync").length).toBeLessThan(400_000);
  const twins = Object.fromEntries(Object.entries(members).map(([key, schema]) => [key, { ...schema, title: "Twin" }]));
  expect(stubsOf([{ name: "t", parameters: { properties: twins } }], "sync")).toContain("class Twin500(TypedDict):");
});
