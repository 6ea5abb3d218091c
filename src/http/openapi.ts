import { readFileSync } from "node:fs";
import { z } from "zod";
import { createDocument, type ZodOpenApiOperationObject, type ZodOpenApiResponseObject } from "zod-openapi";
import { type ErrorCode, errorKind } from "../shared/errors.ts";
import { ROUTES } from "./endpoints.ts";
import { prefixOf } from "./middleware/base-path.ts";
import { type Reply, type Route, route, scopesOf, sentByHandler, type Tag } from "./routes.ts";
import { errorReply } from "./schemas.ts";

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

const TAGS: readonly { readonly name: Tag; readonly description: string }[] = [
  {
    name: "Running code",
    description: "Every execution has a pristine interpreter; the caller's files and packages are there.",
  },
  {
    name: "Sessions",
    description:
      "A session keeps its variables and files between executions, whatever happens to the process that ran them.",
  },
  {
    name: "Files",
    description: "A caller's files outlive executions. Uploads land where the code runs, in /home/pyodide.",
  },
  {
    name: "Secrets",
    description:
      "Credentials of a caller's that the server adds to requests of its code (`network.rules`), which never sees them.",
  },
  { name: "Packages and state", description: "Packages that are installed here are the caller's alone." },
  { name: "Statistics", description: "Of the caller's own executions; a key with the scope `admin` sees everybody's." },
  { name: "Server", description: "Whether it works, and how." },
  { name: "Pages", description: "For people." },
];

/** What names in paths mean. */
const PARAMETERS: Readonly<Record<string, z.ZodType>> = {
  id: z.string().meta({ description: "The session's id." }),
  name: z.string().meta({ description: "The checkpoint's, or secret's, name." }),
  filename: z.string().meta({ description: "Name of one file, without a folder.", example: "data.csv" }),
  library: z.string().meta({ description: "`matplotlib` or `seaborn`." }),
  path: z.string().meta({ description: "In the home folder, or below `tmp/` or `plots/`.", example: "data.csv" }),
};

const WITH_KEY: readonly ErrorCode[] = [
  "unauthorized",
  "too_many_wrong_keys",
  "wrong_host",
  "cross_site",
  "rate_limited",
  "too_many_open_requests",
  "connection_limit",
  "too_much_held",
];
const WITH_BODY: readonly ErrorCode[] = [
  "too_large",
  "body_too_slow",
  "invalid_encoding",
  "unsupported_encoding",
  "bad_request",
];

/** Every code that an endpoint may answer. */
export function errorsOf(declared: Route): readonly ErrorCode[] {
  const { scope, body, query, path, errors } = declared;
  return [
    ...new Set<ErrorCode>([
      ...(body?.errors ?? []),
      ...errors,
      ...(query ? (["invalid_request"] as const) : []),
      ...(body ? WITH_BODY : []),
      ...(/[:*]/.test(path) ? (["invalid_encoding"] as const) : []),
      ...(scope === "no key" ? [] : WITH_KEY),
      ...(scopesOf(declared).length > 0 ? (["missing_scope"] as const) : []),
      "internal",
    ]),
  ];
}

/** `{name}` for `:name` and `*name`. */
export function templateOf({ path }: Route): string {
  return path.replace(/[:*](\w+)/g, "{$1}");
}

function operationOf(declared: Route): ZodOpenApiOperationObject {
  const { tag, operation, summary, description, query, body, scope, path } = declared;
  const names = Array.from(path.matchAll(/[:*](\w+)/g), ([, name = ""]) => name);
  const parameters = Object.fromEntries(names.map((name) => [name, PARAMETERS[name] ?? z.string()]));
  return {
    tags: [tag],
    operationId: operation,
    summary,
    ...(description !== undefined && { description }),
    ...(scope === "no key" && { security: [] }),
    ...((names.length > 0 || query) && {
      requestParams: {
        ...(names.length > 0 && { path: z.object(parameters) }),
        ...(query && { query: query as z.ZodObject }),
      },
    }),
    ...(body && {
      requestBody: {
        required: body.required,
        content: {
          [body.type]: { schema: body.schema, ...(body.example !== undefined && { example: body.example }) },
        },
      },
    }),
    responses: responsesOf(declared),
  };
}

function responsesOf(declared: Route): Record<`${1 | 2 | 3 | 4 | 5}${string}`, ZodOpenApiResponseObject> {
  const byStatus = Object.groupBy(errorsOf(declared), (code) => errorKind(code).status);
  const errors = Object.entries(byStatus).map(([status, codes = []]) => {
    const [first] = codes;
    const { text, means } = errorKind(first as ErrorCode);
    const description = codes.length === 1 ? (text ?? means ?? "") : codes.map((code) => `\`${code}\``).join(", ");
    return [status, { description, content: { "application/json": { schema: errorReply } } }];
  });
  const replies = [declared.reply as Reply<never>, ...(declared.otherReplies ?? [])].map(
    ({ status, description, type, schema }) => {
      const codes = (byStatus[status] ?? []).map((code) => `\`${code}\``).join(", ");
      return [status, { description: [description, codes].join(" ").trim(), content: { [type]: { schema } } }];
    },
  );
  return Object.fromEntries([...errors, ...replies]);
}

/** The HTTP interface as an OpenAPI 3.1 document, made of what the endpoints declare. */
export function openApiDocument() {
  const paths: Record<string, Record<string, ZodOpenApiOperationObject>> = {};
  for (const declared of ENDPOINTS) {
    const template = templateOf(declared);
    paths[template] = { ...paths[template], [declared.method]: operationOf(declared) };
  }
  const document = createDocument(
    {
      openapi: "3.1.0",
      info: {
        title: "Pyodide Express API",
        version,
        description:
          "Runs untrusted Python in WebAssembly: a pristine interpreter for every request. Clients of other servers find their own " +
          "protocols on the same port, with the same keys: MCP at `/mcp`, E2B at `/sandboxes`, Jupyter at `/jupyter`, Piston at " +
          "`/api/v2`, Dify at `/v1/sandbox`, SandboxFusion at `/run_code`, LibreChat at `/librechat/v1` (docs/clients.md).",
        license: { name: "MIT", identifier: "MIT" },
      },
      servers: [{ url: "/" }],
      tags: [...TAGS],
      // The empty one: a server without API keys wants none.
      security: [{}, { bearer: [] }, { apiKey: [] }],
      components: {
        securitySchemes: {
          bearer: { type: "http", scheme: "bearer" },
          apiKey: { type: "apiKey", in: "header", name: "X-API-Key" },
        },
      },
      paths,
    },
    // Checked by a function; its `meta` says what a document can say.
    { allowEmptySchema: { custom: true } },
  );
  for (const methods of Object.values(document.paths ?? {})) {
    for (const { requestBody } of Object.values(methods as Record<string, { requestBody?: JsonRequestBody }>)) {
      const schema = requestBody?.content["application/json"]?.schema;
      for (const [name, member] of Object.entries(schema?.properties ?? {})) {
        if (schema?.properties && !schema.required?.includes(name)) schema.properties[name] = takingNull(member);
      }
    }
  }
  return document;
}

interface Member {
  readonly $ref?: string;
  readonly type?: string | string[];
  readonly enum?: unknown[];
  readonly anyOf?: readonly Member[];
}

interface JsonRequestBody {
  readonly content: Readonly<
    Record<string, { schema: { properties?: Record<string, Member>; readonly required?: readonly string[] } }>
  >;
}

const NULL: Member = { type: "null" };

/** As `parseBody` does with what may be left out. A copy: routes share their schemas. */
function takingNull(member: Member): Member {
  if (member.$ref !== undefined) return { anyOf: [member, NULL] };
  if (member.anyOf) return { ...member, anyOf: [...member.anyOf, NULL] };
  const { type, enum: values } = member;
  return {
    ...member,
    ...(typeof type === "string" && { type: [type, "null"] }),
    ...(values && { enum: [...values, null] }),
  };
}

const document = route({
  method: "get",
  path: "/docs.json",
  scope: "no key",
  tag: "Server",
  operation: "openApi",
  summary: "This document",
  reply: sentByHandler("OpenAPI 3.1.", z.looseObject({ openapi: z.string() })),
  errors: [],
  handler: ({ response }) => {
    made ??= openApiDocument();
    const servers = [{ url: prefixOf(response) || "/" }];
    response.set("Cache-Control", "public, no-cache").json({ ...made, servers });
  },
});
let made: ReturnType<typeof openApiDocument> | undefined;

export const openApiRoutes: readonly Route[] = [document];

/** All of them, in the order of the document. */
export const ENDPOINTS: readonly Route[] = [...ROUTES, document].toSorted(
  (a, b) => TAGS.findIndex(({ name }) => name === a.tag) - TAGS.findIndex(({ name }) => name === b.tag),
);
