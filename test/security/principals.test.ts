import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ENDPOINTS, templateOf } from "../../src/http/openapi.ts";
import { scopesOf } from "../../src/http/routes.ts";
import type { Scope } from "../../src/shared/principal.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { createClient, type TestClient } from "../support/client.ts";
import { readSecurityLog } from "../support/security-log.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

/** What a route asks for: a scope, two, any key at all, or not even that. */
type Needs = Scope | "execute+files" | "any key" | "no key";

/** As declared: what is tested is that the server asks for it. */
const ROUTES: Readonly<Record<string, Needs>> = Object.fromEntries(
  ENDPOINTS.map((declared) => [
    `${declared.method.toUpperCase()} ${templateOf(declared)}`,
    (scopesOf(declared).join("+") || declared.scope) as Needs,
  ]),
);

/** Every route that does with less than a scope. */
const OPEN = {
  "any key": ["GET /api/health", "GET /api/status"],
  "no key": ["GET /", "GET /api/dashboard/stats/dashboard", "GET /docs", "GET /docs.json", "GET /health", "GET /ready"],
} as const;

const KEYS = ["execute", "files", "packages", "secrets", "stats", "admin"] as const;

let server: TestServer;
let ada: TestClient;
let bob: TestClient;
beforeAll(async () => {
  const narrow = KEYS.map((scope) => `only-${scope}:key-of-sixteen-${scope}:${scope}`);
  const both = "both:key-of-sixteen-execute+files:execute+files";
  const keys = [
    both,
    "ada:ada-key-of-sixteen",
    "bob:bob-key-of-sixteen",
    "root:root-key-of-sixteen:admin+stats+files+execute",
    ...narrow,
  ];
  server = await startTestServer({ API_KEYS: keys.join(","), AUTH_MAX_FAILURES: "0" });
  ada = createClient(server.url, { authorization: "Bearer ada-key-of-sixteen" });
  bob = createClient(server.url, { "x-api-key": "bob-key-of-sixteen" });
});
afterAll(async () => await server.stop(0));

/** The reply's status, without waiting for a stream to end. */
async function statusOf(route: string, headers: Record<string, string>): Promise<number> {
  const [method = "", template = ""] = route.split(" ");
  const path = template.replaceAll("{path}", "a.txt").replaceAll(/\{\w+\}/g, "none");
  const controller = new AbortController();
  const response = await fetch(server.url + path, { method, headers, signal: controller.signal, redirect: "manual" });
  controller.abort();
  return response.status;
}

describe("scopes", () => {
  test.each(Object.entries(OPEN))("%s is enough for these routes alone", (needs, routes) => {
    const declared = Object.keys(ROUTES).filter((route) => ROUTES[route] === needs);
    expect(declared.sort()).toEqual(routes);
    expect(Object.keys(ROUTES).length).toBeGreaterThan(40);
  });

  test.each(Object.entries(ROUTES))("%s needs: %s", async (route, needs) => {
    const isOpen = needs === "no key";
    for (const headers of [{}, { authorization: "Bearer wrong" }, { "x-api-key": "key-" }, { authorization: "key-" }]) {
      const status = await statusOf(route, headers as Record<string, string>);
      if (isOpen) expect(status).toBe(200);
      else expect(status).toBe(401);
    }
    for (const scope of KEYS) {
      const status = await statusOf(route, { authorization: `Bearer key-of-sixteen-${scope}` });
      if (isOpen || needs === "any key" || needs === scope) expect([401, 403, 500]).not.toContain(status);
      else expect({ scope, status }).toEqual({ scope, status: 403 });
    }
    if (needs === "execute+files") {
      expect(await statusOf(route, { authorization: "Bearer key-of-sixteen-execute+files" })).toBe(404);
    }
  });

  test("no other spelling of a path gets around them", async () => {
    for (const path of ["/API/STATS", "/api/stats/", "/api/Uploaded-Files", "/api/uploaded-files/", "/METRICS"]) {
      expect(await statusOf(`GET ${path}`, { "x-api-key": "key-of-sixteen-execute" })).toBe(403);
    }
    for (const path of ["//api/stats", "/api//stats", "/api/%73tats", "/./api/stats", "/api/stats;x", "/api\\stats"]) {
      expect([403, 404]).toContain(await statusOf(`GET ${path}`, { "x-api-key": "key-of-sixteen-execute" }));
    }
    expect(await statusOf("HEAD /api/stats", { "x-api-key": "key-of-sixteen-execute" })).toBe(403);
    const override = { "x-api-key": "key-of-sixteen-stats", "x-http-method-override": "POST" };
    expect(await statusOf("GET /api/execute?_method=POST", override)).toBe(404);
  });

  test("a refusal says what is missing, and how to present a key", async () => {
    const without = await server.get("/api/stats");
    expect(without.body).toMatchObject({ success: false, error: "Authentication required", code: "unauthorized" });
    expect(without.headers.get("www-authenticate")).toBe("Bearer");
    const wrong = await server.get("/api/stats", { authorization: "Bearer nope" });
    expect(wrong.body.error).toBe("Invalid API key");
    expect(wrong.headers.get("www-authenticate")).toBe('Bearer error="invalid_token"');
    const narrow = await server.get("/api/stats", { authorization: "Bearer key-of-sixteen-files" });
    expect(narrow.body).toMatchObject({ error: 'This API key lacks the scope "stats"', code: "missing_scope" });
    const other = await server.get("/nothing");
    expect(other.status).toBe(401);
  });

  test("a stranger's body is not read: 401 comes before it is there", async () => {
    const controller = new AbortController();
    const response = await fetch(`${server.url}/api/upload`, {
      method: "POST",
      headers: { "content-type": "multipart/form-data; boundary=x", "content-length": "1000000" },
      // `fetch` sends the head with the first bytes.
      body: new ReadableStream({
        start: (body) => body.enqueue(new TextEncoder().encode("--x")),
        pull: () => new Promise(() => {}),
      }),
      duplex: "half",
      signal: controller.signal,
    } as RequestInit);
    expect(response.status).toBe(401);
    controller.abort();
  });

  test("resetting without the scope for packages leaves them", async () => {
    expect((await server.post("/api/reset", {}, { "x-api-key": "key-of-sixteen-execute" })).status).toBe(200);
  });

  test("refusals are on record, the first of a minute and the number of the others, with neither key nor query", async () => {
    const folder = temporaryFolder("pyodide-express-refusals");
    const own = await startTestServer({ API_KEYS: "ada:ada-key-of-sixteen:files", DATA_DIR: folder });
    const refused = async (key: string, id: string) =>
      await own.get("/api/stats?key=secret-in-query", {
        authorization: `Bearer ${key}`,
        "user-agent": "\u00ff".repeat(8000),
        "x-request-id": id,
      });
    for (let i = 0; i < 9; i++) expect((await refused("secret-key", `wrong-${i}`)).status).toBe(401);
    for (let i = 0; i < 50; i++) expect((await refused("ada-key-of-sixteen", `denied-${i}`)).status).toBe(403);
    await own.stop(0);
    const lines = await readSecurityLog(own.config);
    const details = { method: "GET", path: "/api/stats" };
    expect(lines).toMatchObject([
      { event: "auth_failure", ip: "127.0.0.1", principal: null, requestId: "wrong-0", details },
      { event: "access_denied", principal: "ada", requestId: "denied-0", details },
      { event: "auth_failure", requestId: "wrong-8", details: { ...details, reason: "unauthorized", count: 8 } },
      { event: "access_denied", requestId: "denied-49", details: { ...details, reason: "missing_scope", count: 49 } },
    ]);
    expect(JSON.stringify(lines)).not.toMatch(/secret|ada-key/);
    for (const line of lines) expect(JSON.stringify(line).length).toBeLessThan(1000);
  });
});

describe("two principals", () => {
  const run = async (client: TestClient, code: string) => (await client.post("/api/execute", { code })).body.result;

  test("see nothing of each other's files by any endpoint", async () => {
    await ada.upload("secret.csv", "a\n1\n");
    await run(ada, 'open("/plots/matplotlib/p.png", "w").write("p"); open("/tmp/t", "w").write("t")');
    expect((await bob.get("/api/uploaded-files")).body).toMatchObject({ files: [], count: 0 });
    expect((await bob.get("/api/pyodide-files")).body.result).toMatchObject({ files: [], count: 0 });
    expect((await bob.get("/api/file-info/secret.csv")).body).toMatchObject({
      uploadedFile: { exists: false },
      pyodideFile: { exists: false },
    });
    expect((await bob.post("/api/extract-plots", {})).body.extracted_files).toEqual([]);
    for (const reply of [
      await bob.get("/api/pyodide-files/secret.csv"),
      await bob.get("/api/plots/matplotlib/p.png"),
      await bob.delete("/api/pyodide-files/secret.csv"),
      await bob.delete("/api/uploaded-files/secret.csv"),
    ]) {
      expect(reply.status).toBe(404);
    }
    expect(await run(bob, 'import os; [os.listdir("."), os.listdir("/tmp"), os.listdir("/plots/matplotlib")]')).toEqual(
      [[], [], []],
    );
  });

  test("cannot change or clear each other's", async () => {
    await bob.upload("secret.csv", "b\n2\n");
    expect((await bob.post("/api/clear-all-files", {})).body.cleared).toEqual({ uploaded_files: 1, pyodide_files: 2 });
    expect(await run(ada, 'open("secret.csv").read()')).toBe("a\n1\n");
    expect((await ada.get("/api/uploaded-files")).body.count).toBe(1);
  });

  test("see nothing of how much the server has to do; an administrator does", async () => {
    const size = server.config.POOL_SIZE;
    const poolFor = async (path: string, client: TestClient) => {
      const { body } = await client.get(path);
      return (body.pyodide ?? body).pool;
    };
    for (const path of ["/api/status", "/api/health", "/api/stats", "/health"]) {
      expect(await poolFor(path, bob)).toEqual({ size });
    }
    const root = createClient(server.url, { "x-api-key": "root-key-of-sixteen" });
    expect(await poolFor("/api/status", root)).toMatchObject({ size, executions: expect.any(Number) });
    expect(await poolFor("/health", root)).toEqual({ size });
  });

  test("nor does an administrator, by these endpoints: its files are its own", async () => {
    const root = createClient(server.url, { authorization: "Bearer root-key-of-sixteen" });
    expect((await root.get("/api/uploaded-files")).body.count).toBe(0);
    await root.post("/api/clear-all-files", {});
    expect((await ada.get("/api/uploaded-files")).body.count).toBe(1);
  });

  test("may be in the middle of the same file at the same time", async () => {
    const texts = await Promise.all(
      Array.from({ length: 10 }, (_, i) => {
        const [client, name] = i % 2 ? [ada, "ada"] : [bob, "bob"];
        return run(client, `open("same", "a").write("${name} "); open("same").read()`);
      }),
    );
    for (const [i, text] of texts.entries()) expect(text).toMatch(i % 2 ? /^(ada )+$/ : /^(bob )+$/);
  });

  test("may have keys that are changed without an interruption: one name, one workspace", async () => {
    const dual = await startTestServer({ API_KEYS: "carol:old-key-of-sixteen,carol:new-key-of-sixteen:files" });
    try {
      await dual.upload("a.csv", "a\n1\n", { headers: { "x-api-key": "old-key-of-sixteen" } });
      expect((await dual.get("/api/uploaded-files", { "x-api-key": "new-key-of-sixteen" })).body.count).toBe(1);
      expect((await dual.post("/api/execute", { code: "1" }, { "x-api-key": "new-key-of-sixteen" })).status).toBe(403);
    } finally {
      await dual.stop(0);
    }
  });
});
