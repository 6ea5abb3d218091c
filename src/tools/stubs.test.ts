import { expect, test } from "vitest";
import { type ToolDefinition, toolOf, toolSet } from "./definitions.ts";
import { stubsOf } from "./stubs.ts";

const stubsFor = (tools: readonly ToolDefinition[], mode: "sync" | "async" = "sync") =>
  stubsOf([...toolSet(tools).values()], mode);

test("tools as a stub file", () => {
  const row = {
    type: "object",
    properties: { id: { type: "integer" }, next: { $ref: "#/$defs/row" } },
    required: ["id"],
  };
  const stubs = stubsFor(
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
  const stubs = stubsFor([tool("a", "integer"), tool("b", "integer"), tool("c", "string")]);
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
  expect(stubsFor([{ name: "t", parameters }]).length).toBeLessThan(400_000);
  const twins = Object.fromEntries(Object.entries(members).map(([key, schema]) => [key, { ...schema, title: "Twin" }]));
  expect(stubsFor([{ name: "t", parameters: { properties: twins } }])).toContain("class Twin500(TypedDict):");
});

test("what a schema calls by a name of Python's own is another class, and numbers that cannot be written are left out", () => {
  const object = (title: string) => ({ type: "object", title, properties: { s: { type: "string" } } });
  const properties = {
    a: object("Any"),
    b: object("str"),
    c: object("TypedDict"),
    big: { type: "integer", default: 1e300 },
    far: { type: "number", default: Number.POSITIVE_INFINITY },
    near: { type: "number", default: 1.5 },
  };
  const stubs = stubsFor([{ name: "t", parameters: { properties } }]);
  expect(stubs.match(/^class .*$/gm)).toEqual([
    "class Any2(TypedDict):",
    "class str2(TypedDict):",
    "class TypedDict2(TypedDict):",
  ]);
  expect(stubs).toContain("big: int = ..., far: float = ..., near: float = 1.5");
});

test("tools of MCP servers are where code finds them", () => {
  const inner = (server: string, name: string, more: object = {}) =>
    toolOf({ name, ...more }, { naming: { namespace: `mcp.${server}`, key: `mcp.${server}.${name}` } });
  const row = { type: "object", properties: { id: { type: "integer" } } };
  const tools = [
    inner("github", "search-issues", {
      description: "Finds issues.\nAll of them.",
      parameters: { properties: { query: { type: "string" } }, required: ["query"] },
    }),
    inner("files", "stat", { parameters: { type: "object" }, returns: { ...row } }),
    inner("github", "get", { parameters: { properties: { row } } }),
    ...toolSet([{ name: "ask" }]).values(),
  ];
  expect(stubsOf(tools, "sync")).toBe(`from typing import Any, Literal, NotRequired, TypedDict

class McpGithubGetRow(TypedDict):
    id: NotRequired[int]

class McpFilesStatResult(TypedDict):
    id: NotRequired[int]

def ask(**arguments: Any) -> Any: ...

class mcp:
    class github:
        @staticmethod
        def search_issues(query: str) -> Any:
            """Finds issues.
            All of them."""

        @staticmethod
        def get(row: McpGithubGetRow = ...) -> Any: ...

    class files:
        @staticmethod
        def stat(**arguments: Any) -> McpFilesStatResult: ...
`);
});
