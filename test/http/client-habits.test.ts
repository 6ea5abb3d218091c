import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openApiDocument } from "../../src/http/openapi.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

interface Body {
  readonly schema: { readonly properties?: Record<string, unknown>; readonly required?: readonly string[] };
  readonly example?: unknown;
}
interface Operation {
  readonly requestBody?: { readonly content: Readonly<Record<string, Body>> };
}

const document = openApiDocument();
/** A schema that has a name is among the components. */
function resolved({ schema, ...body }: Body): Body {
  const name = (schema as { $ref?: string }).$ref?.split("/").at(-1);
  return { ...body, schema: name === undefined ? schema : (document.components?.schemas?.[name] as Body["schema"]) };
}

/** Every route with a body, by its type: a route that is added is tested without a word here. */
const routes = Object.entries(document.paths ?? {}).flatMap(([path, methods]) =>
  Object.entries(methods as Record<string, Operation>).flatMap(([method, { requestBody }]) =>
    Object.entries(requestBody?.content ?? {}).map(([type, body]) => ({
      method: method.toUpperCase(),
      path,
      type,
      body: resolved(body),
    })),
  ),
);
const jsonRoutes = routes.filter(({ type }) => type === "application/json");
/** Large enough for the thread that parses what is large. */
const FILLER = "x".repeat(200_000);

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ SECRETS_KEY: "5e".repeat(32) });
  await server.post("/api/sessions", { id: "here" });
});
afterAll(() => server.stop(0));

type Route = (typeof routes)[number];

async function ask({ method, path }: Route, body: string | Uint8Array, type?: string, headers = {}) {
  // A session takes so many checkpoints, and each name once.
  const id = path.endsWith("/checkpoints") ? (await server.post("/api/sessions", {})).body.session.id : "here";
  const url = path
    .replace("{id}", id)
    .replace("{path}", "f")
    .replace("{name}", "token")
    .replace(/\{(execution|continuation)\}/, NONE);
  const bytes = typeof body === "string" ? Buffer.from(body) : body;
  return await server.request(url, {
    method,
    body: bytes as NonNullable<RequestInit["body"]>,
    // A header of nothing is none.
    headers: { ...(type !== undefined && { "content-type": type }), ...headers },
  });
}
const askJson = async (route: Route, body: string | Uint8Array, charset = "") =>
  await ask(route, body, `application/json${charset}`);
function exampleOf({ body, path }: Route): Record<string, unknown> {
  return path === "/api/install-package" ? { package: "no-such-package" } : (body.example as Record<string, unknown>);
}
/** No execution has it. What a body says is read before an execution is looked for. */
const NONE = "exec_none";
const succeeds = (status: number) => status === 200 || status === 201;
/** The reply to a body that was taken. */
const taken = ({ path }: Route) => {
  if (/\{(execution|continuation)\}/.test(path)) return (status: number) => status === 404;
  // The session has the example's namespace from the second time on.
  return path.endsWith("/namespaces") ? (status: number) => status === 201 || status === 409 : succeeds;
};

interface Schema {
  readonly type?: string | readonly string[];
  readonly anyOf?: readonly Schema[];
}
const mayBeNull = (schema: unknown): boolean => {
  const { type = [], anyOf = [] } = schema as Schema;
  return [type].flat().includes("null") || anyOf.some(mayBeNull);
};

test("there are such routes", () => {
  expect(jsonRoutes.map(({ path }) => path)).toEqual(
    expect.arrayContaining([
      "/api/execute",
      "/api/execute-stream",
      "/api/sessions",
      "/api/reset",
      "/api/install-package",
    ]),
  );
});

describe("null for what may be left out is as if it were left out", () => {
  const members = jsonRoutes.flatMap((route) =>
    Object.keys(route.body.schema.properties ?? {})
      .filter((name) => !route.body.schema.required?.includes(name))
      .map((name) => ({ ...route, name })),
  );
  test.for(members)("$method $path: $name", async ({ name, ...route }) => {
    const { [name]: _, ...without } = exampleOf(route);
    const reply = await askJson(route, JSON.stringify({ ...without, [name]: null }));
    expect(reply.status, JSON.stringify(reply.body)).toSatisfy(taken(route));
    expect(mayBeNull(route.body.schema.properties?.[name])).toBe(true);
  });

  test("all at a time, and in large bodies", async () => {
    for (const route of jsonRoutes) {
      const optional = Object.keys(route.body.schema.properties ?? {}).filter(
        (name) => !route.body.schema.required?.includes(name),
      );
      const nulls = Object.fromEntries(optional.map((name) => [name, null]));
      const required = Object.fromEntries(
        Object.entries(exampleOf(route)).filter(([name]) => route.body.schema.required?.includes(name)),
      );
      const reply = await askJson(route, JSON.stringify({ ...required, ...nulls, filler: FILLER }));
      expect(reply.status, `${route.path}: ${JSON.stringify(reply.body)}`).toSatisfy(taken(route));
    }
  });

  test("but a null that the contract names has its error", async () => {
    expect((await server.post("/api/execute", { code: null })).body.error).toBe(
      'No code provided. Please include "code" in the request body.',
    );
    expect((await server.post("/api/install-package", { package: null })).body.error).toMatch(
      /^No package name provided/,
    );
  });

  test("and values keep theirs", async () => {
    const { body } = await server.post("/api/execute", { code: "1", context: { x: null }, timeout: null });
    expect(body.result).toBe(1);
    expect((await server.post("/api/execute", { code: "x is None", context: { x: null } })).body.result).toBe(true);
    expect((await server.post("/api/execute", { code: "1", stdin: 1 })).body.error).toBe("Stdin must be a string.");
    expect((await server.post("/api/reset", { session: 1 })).body.error).toBe("Session must be a string.");
  });
});

describe("charsets, by whatever alias", () => {
  const UTF8 = ["utf8", "UTF8", "UTF-8", '"utf-8"', '"UTF8"', "'utf-8'", "utf_8", "unicode-1-1-utf-8", "utf-8-sig", ""];
  test.for(jsonRoutes)("$method $path takes UTF-8 under all its names", async (route) => {
    for (const alias of UTF8) {
      for (const parameter of [`; charset=${alias}`, `;charset=${alias};`, `; Charset=${alias}`]) {
        const reply = await askJson(route, JSON.stringify({ ...exampleOf(route), nobody: "é" }), parameter);
        expect(reply.status, parameter).toSatisfy(taken(route));
      }
    }
  });

  test.each(["constructor", "valueof", "tostring"])("%s is none", async (charset) => {
    const reply = await server.post("/api/execute", '{"code":"1"}', {
      "content-type": `application/json; charset=${charset}`,
    });
    expect(reply.status).toBe(415);
  });

  const text = "'é' + chr(0x20ac)";
  test.each<[string, BufferEncoding]>([
    ["latin1", "latin1"],
    ["Latin-1", "latin1"],
    ["ISO-8859-1", "latin1"],
    ["iso_8859-1", "latin1"],
    ["windows-1252", "latin1"],
    ["utf-16", "utf16le"],
    ["UTF16", "utf16le"],
    ["utf-16le", "utf16le"],
  ])("%s, in JSON, raw code and forms", async (charset, encoding) => {
    const json = Buffer.from(JSON.stringify({ code: text }), encoding);
    expect(
      (await server.post("/api/execute", json, { "content-type": `application/json; charset=${charset}` })).body.result,
    ).toBe("é€");
    const raw = Buffer.from(text, encoding);
    expect(
      (await server.post("/api/execute-raw", raw, { "content-type": `text/plain; charset=${charset}` })).body.result,
    ).toBe("é€");
    const form = Buffer.from("code='é'%2B'%E9'", encoding);
    const type = `application/x-www-form-urlencoded; charset=${charset}`;
    const reply = await server.post("/api/execute", form, { "content-type": type });
    if (encoding === "latin1") expect(reply.body.result).toBe("éé");
    else expect([reply.status, reply.body.error]).toEqual([415, expect.stringContaining("UTF-8")]);
  });

  test("the mark of UTF-16 says its byte order", async () => {
    const big = Buffer.from(`\ufeff${JSON.stringify({ code: text })}`, "utf16le").swap16();
    const type = "application/json; charset=utf-16";
    expect((await server.post("/api/execute", big, { "content-type": type })).body.result).toBe("é€");
    expect(
      (
        await server.post("/api/execute-raw", Buffer.from(`\ufeff${text}`, "utf16le").swap16(), {
          "content-type": "text/plain; charset=utf-16",
        })
      ).body.result,
    ).toBe("é€");
    // Windows' PowerShell writes it without a word.
    const little = await server.post("/api/execute", Buffer.from(`\ufeff{"code":"1"}`, "utf16le"));
    expect([little.status, little.body.code]).toEqual([400, "invalid_encoding"]);
    expect(little.body.error).toContain("declare charset=utf-16");
  });

  test.for(routes.filter(({ type }) => type === "application/json" || type === "text/plain"))(
    "$method $path names a charset that is not taken, and those that are",
    async (route) => {
      const reply = await ask(route, "{}", `${route.type}; charset=klingon`);
      expect([reply.status, reply.body.code]).toEqual([415, "unsupported_encoding"]);
      expect(reply.body.error).toMatch(/"klingon".*UTF-8/);
    },
  );

  test("a compression that is not known is named, with those that are", async () => {
    const reply = await server.post("/api/execute", "{}", { "content-encoding": "zstd-9" });
    expect([reply.status, reply.body.error]).toEqual([415, expect.stringMatching(/"zstd-9".*gzip/)]);
  });
});

describe("a byte order mark", () => {
  test.for(jsonRoutes)("$method $path: before the JSON", async (route) => {
    for (const filler of ["", FILLER]) {
      const reply = await askJson(route, `\ufeff${JSON.stringify({ ...exampleOf(route), filler })}`);
      expect(reply.status).toSatisfy(taken(route));
    }
  });

  test.each(["\ufeff", "\ufeff\ufeff"])("in code: JSON, form, raw, stream and session (%j)", async (mark) => {
    const code = `${mark}import math\nmath.floor(2.5)`;
    expect((await server.post("/api/execute", { code })).body).toMatchObject({ success: true, result: 2 });
    expect((await server.post("/api/execute", { code, session: "here" })).body.result).toBe(2);
    const form = new URLSearchParams({ code }).toString();
    const FORM = { "content-type": "application/x-www-form-urlencoded" };
    expect((await server.post("/api/execute", form, FORM)).body.result).toBe(2);
    expect((await server.post("/api/execute", `\ufeffcode=${encodeURIComponent(code)}`, FORM)).body.result).toBe(2);
    expect((await server.post("/api/execute-raw", code, { "content-type": "text/plain" })).body.result).toBe(2);
    expect((await server.post("/api/execute-stream", { code })).body).toContain('"result":2');
  });

  test("counts for lines and columns as nothing, and is no code by itself", async () => {
    const { body } = await server.post("/api/execute", { code: "\ufeff1 / 0" });
    expect(body.errorInfo).toMatchObject({ type: "ZeroDivisionError", line: 1 });
    expect((await server.post("/api/execute", { code: "\ufeff" })).body.error).toBe("Code cannot be empty");
    expect((await server.post("/api/execute", { code: "len('\ufeff')" })).body.result).toBe(1);
    expect((await server.post("/api/execute", { code: "len(x)", context: { x: "\ufeffx" } })).body.result).toBe(2);
  });
});

describe("bytes that are not the declared encoding are an error, never U+FFFD", () => {
  const latin1 = (text: string) => Buffer.from(text, "latin1");
  const refused = (reply: { status: number; body: { code?: string; error?: string } }, encoding = "UTF-8") => {
    expect([reply.status, reply.body.code]).toEqual([400, "invalid_encoding"]);
    expect(reply.body.error).toContain(encoding);
  };

  test.for(jsonRoutes)("$method $path", async (route) => {
    for (const filler of ["", FILLER]) {
      const text = JSON.stringify({ ...exampleOf(route), nobody: "é", filler });
      refused(await askJson(route, latin1(text)));
      refused(await askJson(route, latin1(text), "; charset=utf8"));
      refused(await askJson(route, text, "; charset=us-ascii"), "US-ASCII");
      refused(await ask(route, gzipSync(latin1(text)), "application/json", { "content-encoding": "gzip" }));
    }
    for (const bytes of ["c080", "eda080", "f4908080", "c3", "80", "ff"]) {
      refused(
        await askJson(route, Buffer.concat([Buffer.from('{"nobody":"'), Buffer.from(bytes, "hex"), Buffer.from('"}')])),
      );
    }
    const half = Buffer.from('{"nobody":"\ud800"}', "utf16le");
    refused(await askJson(route, half, "; charset=utf-16"), "UTF-16");
  });

  test.each(["execute-raw"])("POST /api/%s", async (name) => {
    const raw = async (code: Uint8Array, charset = "") =>
      await server.post(`/api/${name}`, code, { "content-type": `text/plain${charset}` });
    refused(await raw(latin1("'é'")));
    refused(await raw(latin1("# -*- coding: latin-1 -*-\n'é'")));
    refused(await raw(Buffer.from("'é'"), "; charset=ascii"), "US-ASCII");
    refused(await raw(Buffer.from([0x81]), "; charset=shift_jis"), "SHIFT_JIS");
    expect((await raw(Buffer.from("'\ufffd'"))).body.result).toBe("\ufffd");
  });

  test.each([
    "code='%E9'",
    "code=1&stdin=%E9",
    "code=1&%E9=1",
    "code=1&context[a]=%ff",
    "code='\xe9'",
    `code=1&stdin=${"x".repeat(200_000)}%E9`,
  ])("a form, %.30s", async (form) => {
    for (const path of ["/api/execute", "/api/execute-stream"]) {
      refused(await server.post(path, latin1(form), { "content-type": "application/x-www-form-urlencoded" }));
    }
  });

  test("what only looks like an escape of a form stays as it is", async () => {
    const reply = await server.post("/api/execute", "code='100%'%2B'%zz%C3%A9'%2B\"%e2%82%ac\"", {
      "content-type": "application/x-www-form-urlencoded",
    });
    expect(reply.body.result).toBe("100%%zzé€");
  });

  test.each(["/api/upload", "/api/upload-csv"])("the name of a file, %s", async (path) => {
    const upload = async (disposition: string) => {
      const body = latin1(
        `--x\r\nContent-Disposition: form-data; name="file"; ${disposition}\r\n\r\na,b\n1,2\n\r\n--x--\r\n`,
      );
      return await server.post(path, body, { "content-type": "multipart/form-data; boundary=x" });
    };
    refused(await upload('filename="caf\xe9.csv"'));
    refused(await upload("filename*=utf-8''caf%E9.csv"));
    expect((await upload("filename*=utf-8''caf%C3%A9.csv")).body.file.originalName).toBe("café.csv");
    expect((await upload("filename*=iso-8859-1''caf%E9.csv")).body.file.originalName).toBe("café.csv");
    expect((await upload(`filename="${Buffer.from("café.csv").toString("latin1")}"`)).body.file.originalName).toBe(
      "café.csv",
    );
    expect(
      (await server.get("/api/uploaded-files")).body.files.map(({ filename }: { filename: string }) => filename).join(),
    ).not.toContain("\ufffd");
  });

  const named = Object.entries(openApiDocument().paths ?? {}).flatMap(([path, methods]) =>
    /\{(filename|path|id|name|library)\}$/.test(path)
      ? Object.keys(methods as object).map((method) => [method, path] as const)
      : [],
  );
  test.for(named)("a name in a path: %s %s", async ([method, path]) => {
    const reply = await server.request(path.replace("{id}", "%FF").replace(/\{\w+\}/g, "%FF"), {
      method: method.toUpperCase(),
    });
    refused(reply);
  });
});

describe("a wrong content type is named, with what would be right", () => {
  const shown = (body: { error?: string; hint?: string }) => `${body.error} ${body.hint ?? ""}`;
  const WRONG = ["application/xml", "text/json", "application/vnd.api+json", "application/octet-stream", undefined];
  const strict = routes.filter(({ type }) => type !== "application/octet-stream");
  test.for(strict)("$method $path", async (route) => {
    for (const type of WRONG) {
      const reply = await ask(route, "<code/>", type === undefined ? undefined : `${type}; charset=utf-8`);
      expect([400, 415]).toContain(reply.status);
      expect(shown(reply.body)).toContain(route.type);
      expect(shown(reply.body)).toContain(type === undefined ? "without a Content-Type" : `"${type}"`);
    }
  });

  test("what the contract says of a missing body begins the error", async () => {
    const send = async (path: string) => (await server.post(path, "1 + 1", { "content-type": "text/x-python" })).body;
    expect((await send("/api/execute")).error).toMatch(
      /^No code provided\. Please include "code" in the request body\. /,
    );
    expect((await send("/api/execute-raw")).error).toBe("No Python code provided in request body");
    expect((await send("/api/upload")).error).toMatch(/^No file uploaded\. /);
  });

  test("`curl -d` sends JSON as a form", async () => {
    for (const path of ["/api/execute", "/api/sessions", "/api/install-package"]) {
      const { status, body } = await server.post(path, '{"code": "1 + 1", "ttl": 5}', {
        "content-type": "application/x-www-form-urlencoded",
      });
      expect([400, 415]).toContain(status);
      expect(body.error).toContain("looks like JSON: send application/json");
    }
  });

  test("nothing was done", async () => {
    const before = (await server.get("/api/sessions")).body.count;
    await server.post("/api/sessions", "id: x", { "content-type": "application/yaml" });
    expect((await server.get("/api/sessions")).body.count).toBe(before);
  });

  test("an empty body has no type to be wrong", async () => {
    for (const path of ["/api/sessions", "/api/reset"]) {
      expect((await server.post(path, "", { "content-type": "text/plain" })).status).toSatisfy(succeeds);
      expect((await server.request(path, { method: "POST" })).status).toSatisfy(succeeds);
    }
  });
});
