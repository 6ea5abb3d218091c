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
