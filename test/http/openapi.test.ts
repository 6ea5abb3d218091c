import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { type AppOptions, createApp } from "../../src/http/app.ts";
import { ENDPOINTS, errorsOf, openApiDocument, templateOf } from "../../src/http/openapi.ts";
import { testConfig } from "../support/config.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

type Json = Record<string, unknown>;
interface Operation {
  readonly operationId: string;
  readonly tags: readonly string[];
  readonly parameters?: readonly { readonly name: string; readonly in: string; readonly required?: boolean }[];
  readonly requestBody?: { readonly content: Record<string, { schema: Json; example?: unknown }> };
  readonly responses: Record<string, { description: string; content?: Record<string, { schema: Json }> }>;
}

const document = openApiDocument();
const operations: ReadonlyMap<string, Operation> = new Map(
  Object.entries(document.paths ?? {}).flatMap(([path, methods]) =>
    Object.entries(methods as Record<string, unknown>).map(
      ([method, operation]) => [`${method.toUpperCase()} ${path}`, operation as Operation] as const,
    ),
  ),
);

describe("the document", () => {
  test("describes every route that is served, and no other", () => {
    // Nothing is sent to it: what is looked at is the table of routes.
    const app = createApp({
      config: testConfig(),
      logger: pino({ level: "silent" }),
      status: {},
      protocols: [],
    } as unknown as AppOptions);
    expect([...operations.keys()].sort()).toEqual([...new Set(routesOf(app.router))].sort());
  });

  test("is consistent in itself", () => {
    const names = [...operations.values()].map(({ operationId }) => operationId);
    expect(new Set(names).size).toBe(names.length);
    const tags = new Set((document.tags ?? []).map(({ name }) => name));
    for (const [route, operation] of operations) {
      expect(tags, route).toContain(operation.tags[0]);
      const inPath = [...route.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
      const declared = (operation.parameters ?? []).filter((parameter) => parameter.in === "path");
      expect(declared.map(({ name }) => name).sort(), route).toEqual(inPath.sort());
      expect(
        declared.every(({ required }) => required),
        route,
      ).toBe(true);
      expect(Object.keys(operation.responses), route).toContainEqual(expect.stringMatching(/^(101|20[012])$/));
    }
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)];
    expect(references.length).toBeGreaterThan(50);
    for (const [, name = ""] of references) expect(document.components?.schemas).toHaveProperty([name]);
    for (const requirement of document.security ?? []) {
      for (const name of Object.keys(requirement)) expect(document.components?.securitySchemes).toHaveProperty([name]);
    }
  });

  test("states the limits that requests are checked with", () => {
    const schema = operations.get("POST /api/execute")?.requestBody?.content["application/json"]?.schema as {
      properties: Record<string, Json>;
      required: string[];
    };
    expect(schema.required).toEqual(["code"]);
    expect(schema.properties.code).toMatchObject({ type: "string", maxLength: 100_000 });
    expect(schema.properties.context).toMatchObject({ type: ["object", "null"] });
    expect(schema.properties.timeout).toMatchObject({ type: ["number", "null"], maximum: 300_000 });
  });
});

describe("replies are as the document says", () => {
  let server: TestServer;

  beforeAll(async () => {
    server = await startTestServer();
    await server.post("/api/execute", { code: "open('/plots/matplotlib/a.png', 'w').write('x')" });
    await upload("/api/upload");
  });
  afterAll(async () => await server.stop(0));

  async function upload(path: string, name = "data.csv") {
    const form = new FormData();
    form.append("csvFile", new File(["a,b\n1,2\n"], name));
    const response = await fetch(server.url + path, { method: "POST", body: form });
    return { status: response.status, body: await response.json() };
  }

  const cases: [route: string, path: string, status: number, body?: unknown][] = [
    ["POST /api/execute", "", 200, { code: "1 + 1" }],
    ["POST /api/execute", "", 200, { code: "display(1)\n1 / 0" }],
    ["POST /api/execute", "", 200, { code: "print('x' * 2_000_000)" }],
    ["POST /api/execute", "", 400, {}],
    ["POST /api/execute-raw", "", 400, {}],
    ["POST /api/execute-stream", "", 400, {}],
    ["PUT /api/files/{path}", "/api/files/put.xlsx", 200],
    ["PUT /api/files/{path}", "/api/files/..%2Fx", 400],
    ["PUT /api/files/{path}", "/api/files/plots/matplotlib", 409],
    ["GET /api/files", "", 200],
    ["GET /api/files/{path}", "/api/files/none.txt", 404],
    ["DELETE /api/files/{path}", "/api/files/put.xlsx", 200],
    ["DELETE /api/files/{path}", "/api/files/put.xlsx", 404],
    ["GET /api/uploaded-files", "", 200],
    ["GET /api/pyodide-files", "", 200],
    ["GET /api/file-info/{filename}", "/api/file-info/data.csv", 200],
    ["GET /api/file-info/{filename}", "/api/file-info/none.csv", 200],
    ["GET /api/file-info/{filename}", "/api/file-info/..%2Fx", 400],
    ["GET /api/pyodide-files/{filename}", "/api/pyodide-files/none.csv", 404],
    ["GET /api/plots/{library}/{filename}", "/api/plots/matplotlib/none.png", 404],
    ["DELETE /api/pyodide-files/{filename}", "/api/pyodide-files/uploaded_file.csv", 200],
    ["DELETE /api/uploaded-files/{filename}", "/api/uploaded-files/data.csv", 200],
    ["DELETE /api/uploaded-files/{filename}", "/api/uploaded-files/data.csv", 404],
    ["POST /api/extract-plots", "", 200],
    ["POST /api/clear-all-files", "", 200],
    ["POST /api/install-package", "", 200, { package: "no-such-package" }],
    ["POST /api/install-package", "", 400, { package: "../x" }],
    ["POST /api/install-package", "", 403, { package: "os" }],
    ["GET /api/packages", "", 200],
    ["GET /api/environments", "", 200],
    ["POST /api/reset", "", 200],
    ["GET /api/dashboard/stats", "", 200],
    ["GET /api/stats", "", 200],
    ["POST /api/dashboard/stats/clear", "", 200],
    ["GET /api/status", "", 200],
    ["GET /api/health", "", 200],
    ["GET /health", "", 200],
    ["GET /ready", "", 200],
    ["GET /docs.json", "", 200],
  ];

  test.for(cases)("%s %s %i", async ([route, path, status, body]) => {
    const [method = "", template = ""] = route.split(" ");
    const response = await fetch(server.url + (path || template), {
      method,
      ...(method === "POST" && {
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body ?? {}),
      }),
    });
    expect(response.status).toBe(status);
    expectDescribed(route, { status, body: await response.json() });
  });

  test.for(["/api/upload", "/api/upload-csv"])("POST %s", async (path) => {
    expectDescribed(`POST ${path}`, await upload(path));
    expectDescribed(`POST ${path}`, await upload(path, "a.exe"));
  });

  test.for(["GET /", "GET /docs", "GET /api/dashboard/stats/dashboard", "GET /metrics"])("%s", async (route) => {
    const reply = await server.get(route.slice("GET ".length));
    expect(reply.status).toBe(200);
    const [type = ""] = Object.keys(operations.get(route)?.responses["200"]?.content ?? {});
    expect(reply.headers.get("content-type")?.startsWith(type)).toBe(true);
  });

  test("POST /api/execute-stream, each event", async () => {
    const { body } = await server.post("/api/execute-stream", { code: "print(1)\ndisplay(2)\n3" });
    const events = (body as string)
      .split("\n\n")
      .filter((event) => event !== "")
      .map((event) => JSON.parse(event.slice("data: ".length)));
    const schema = operations.get("POST /api/execute-stream")?.responses["200"]?.content?.["text/event-stream"]?.schema;
    for (const event of events) expect(validator(schema ?? {}).parse(event)).toEqual(event);
    expect([...new Set(events.map(({ type }) => type))]).toEqual(["status", "stdout", "output", "result", "complete"]);
  });
});

function expectDescribed(route: string, { status, body }: { status: number; body: unknown }): void {
  const schema = operations.get(route)?.responses[status]?.content?.["application/json"]?.schema;
  expect(schema, `${route} ${status}`).toBeDefined();
  expect(validator(schema ?? {}).parse(body)).toEqual(body);
  expect(validator(schema ?? {}).safeParse({ timestamp: 1 }).success).toBe(false);
  const declared = ENDPOINTS.find((one) => `${one.method.toUpperCase()} ${templateOf(one)}` === route);
  const { code } = body as { code?: string };
  if (status >= 400 && code !== undefined && declared) expect(errorsOf(declared)).toContain(code);
}

/** The document's own schema as a check, so that it is the document that is tested. */
function validator(schema: Json): z.ZodType {
  const text = JSON.stringify({ ...schema, $defs: document.components?.schemas });
  return z.fromJSONSchema(JSON.parse(text.replaceAll("#/components/schemas/", "#/$defs/")));
}

interface Layer {
  readonly route?: {
    readonly path: string | readonly string[];
    readonly stack: readonly { readonly method: string }[];
  };
  readonly handle?: { readonly stack?: readonly Layer[] };
}

/** `METHOD /path/{parameter}` of every route below a router. Assets are no part of the interface. */
function routesOf(router: unknown): string[] {
  const { stack } = router as { stack: readonly Layer[] };
  return stack.flatMap(({ route, handle }) => {
    if (!route) return handle?.stack ? routesOf(handle) : [];
    const methods = new Set(route.stack.map(({ method }) => method.toUpperCase()));
    return [route.path].flat().flatMap((path) => {
      const template = path.replace(/[:*](\w+)/g, "{$1}");
      return path.startsWith("/assets/") ? [] : [...methods].map((method) => `${method} ${template}`);
    });
  });
}
