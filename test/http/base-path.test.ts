import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openRawRequest } from "../support/raw-request.ts";
import { pathOf, ROUTES } from "../support/routes.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const PAGES = ROUTES.filter(({ replies }) => replies.includes("text/html")).map(({ path }) => path);
const isUnknown = (body: unknown) => (body as { code?: string }).code === "endpoint_not_found";
const linksOf = (html: string) => [...html.matchAll(/ (?:href|src)="([^"#]+)"/g)].map(([, link]) => link as string);

describe.each<[string, Record<string, string>, Record<string, string>, (path: string) => string]>([
  ["BASE_PATH, the proxy passes paths as they came", { BASE_PATH: "/py" }, {}, (path) => path],
  [
    "X-Forwarded-Prefix, the proxy takes it off",
    { TRUST_PROXY: "loopback" },
    { "x-forwarded-prefix": "/py" },
    (path) => path.replace(/^\/py/, ""),
  ],
  [
    "both, the header first",
    { TRUST_PROXY: "1", BASE_PATH: "/other/" },
    { "x-forwarded-prefix": "/py/" },
    (path) => path.replace(/^\/py/, "/other"),
  ],
])("below /py: %s", (_name, settings, headers, sent) => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer(settings);
  });
  afterAll(() => server.stop(0));
  const get = (path: string) => server.get(sent(path), headers);

  test.for(PAGES)("%s: all that the page loads and links to is there", async (path) => {
    const page = await get(`/py${path}`);
    expect(page.status).toBe(200);
    const links = linksOf(page.body);
    expect(links.length).toBeGreaterThan(5);
    for (const link of links) {
      expect(link).toMatch(/^\/py\//);
      expect([link, (await get(link)).status]).toEqual([link, 200]);
    }
  });

  test("modules that pages load name no path that begins at the host", async () => {
    const seen = new Set<string>();
    const visit = async (url: string): Promise<void> => {
      if (seen.has(url)) return;
      seen.add(url);
      const { status, body } = await get(url);
      expect([url, status]).toEqual([url, 200]);
      for (const [, name] of (body as string).matchAll(/from "\.\/([\w-]+\.js)"/g)) await visit(`/py/assets/${name}`);
    };
    for (const path of PAGES) {
      const { body } = await get(`/py${path}`);
      for (const link of linksOf(body)) if (link.endsWith(".js") && !link.endsWith("chart.js")) await visit(link);
    }
    expect(seen.size).toBeGreaterThan(8);
  });

  test("the OpenAPI document says so", async () => {
    expect((await get("/py/docs.json")).body.servers).toEqual([{ url: "/py" }]);
  });

  test("no reply redirects out of it", async () => {
    for (const route of ROUTES) {
      const response = await fetch(server.url + sent(`/py${pathOf(route)}/`), {
        method: "HEAD",
        redirect: "manual",
        headers,
      });
      const location = response.headers.get("location");
      if (location !== null) expect(location).toMatch(/^\/py\//);
    }
  });

  test.for([...ROUTES])("$method $path is served", async (route) => {
    if (route.path.endsWith("/stream")) return;
    const options = { method: route.method, headers, ...(route.method !== "GET" && { body: "{}" }) };
    const { body } = await server.request(sent(`/py${pathOf(route)}`), options);
    expect(isUnknown(body)).toBe(false);
  });
});

describe("BASE_PATH", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer({ BASE_PATH: "py/notebooks/" });
  });
  afterAll(() => server.stop(0));

  test("is normalised, and probes need not know of it", async () => {
    expect(server.config.BASE_PATH).toBe("/py/notebooks");
    for (const path of ["/health", "/py/notebooks/health", "/py/notebooks/ready", "/ready", "/metrics"]) {
      expect([path, (await server.get(path)).status]).toEqual([path, 200]);
    }
    for (const path of ["/py/notebooks", "/py/notebooks/", "/py/notebooks?x=1"]) {
      expect((await server.get(path)).body).toContain('src="/py/notebooks/assets/playground.js"');
    }
  });

  test("is a whole name, and in the case it has", async () => {
    for (const path of [
      "/py/notebooksx/health",
      "/py/health",
      "/PY/notebooks/health",
      "/py/notebooks/py/notebooks/health",
    ]) {
      expect([path, (await server.get(path)).status]).toEqual([path, 404]);
    }
  });

  test.each([
    "/a b",
    "/../x",
    "/a/..",
    '//evil.example/x"',
    "https://evil.example",
    "/a?b",
    "/a#b",
    "/.",
    "/é",
    `/${"x".repeat(300)}`,
  ])("%j cannot be one", async (BASE_PATH) => {
    await expect(startTestServer({ BASE_PATH })).rejects.toThrow(/BASE_PATH=/);
  });
});

describe("X-Forwarded-Prefix", () => {
  let trusting: TestServer;
  let other: TestServer;
  beforeAll(async () => {
    trusting = await startTestServer({ TRUST_PROXY: "loopback" });
    other = await startTestServer({ TRUST_PROXY: "192.0.2.1" });
  });
  afterAll(async () => {
    await trusting.stop(0);
    await other.stop(0);
  });
  const serversOf = async (server: TestServer, prefix: string) =>
    (await server.get("/docs.json", { "x-forwarded-prefix": prefix })).body.servers[0].url;

  test("of another than the proxy is not believed", async () => {
    expect(await serversOf(other, "/py")).toBe("/");
  });

  test.each([
    ["/py", "/py"],
    ["py/", "/py"],
    ["/a, /b", "/a/b"],
    ["/", "/"],
    ["//evil.example", "/evil.example"],
    ['/"><script>alert(1)</script>', "/"],
    ["/a/../b", "/"],
    ["https://evil.example", "/"],
    ["/a%2fb", "/"],
  ])("%j becomes %j", async (prefix, url) => {
    expect(await serversOf(trusting, prefix)).toBe(url);
    const page = await trusting.get("/", { "x-forwarded-prefix": prefix });
    for (const link of linksOf(page.body)) expect(link).toMatch(/^\/(?!\/)[\w./-]*$/);
  });

  test("pages of another prefix are other pages for a cache", async () => {
    const tags = await Promise.all(
      ["/a", "/b", ""].map(async (prefix) =>
        (await trusting.get("/", { "x-forwarded-prefix": prefix })).headers.get("etag"),
      ),
    );
    expect(new Set(tags).size).toBe(3);
  });
});

describe("`//` in a path is `/`", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer();
  });
  afterAll(() => server.stop(0));

  test.for([...ROUTES])("$method $path", async (route) => {
    if (route.path.endsWith("/stream")) return;
    const path = pathOf(route);
    for (const spelling of [`/${path}`, path.replaceAll("/", "//"), path.replaceAll("/", "////")]) {
      const { reply } = await openRawRequest(server.url, [`${route.method} ${spelling} HTTP/1.1`, "Content-Length: 0"]);
      expect(await reply()).not.toContain('"code":"endpoint_not_found"');
    }
  });

  test("but not in a query, and not where it is a name's own", async () => {
    expect((await server.get("/api//packages?environment=a//b")).body.error).toBe("Invalid environment name.");
    await server.put("/api/files//a//b.txt", "x");
    expect((await server.get("/api/files/a/b.txt")).body).toBe("x");
    expect((await server.get("/api/files/a%2F%2Fb.txt")).status).toBe(400);
  });

  test("a scope is asked for under every spelling", async () => {
    const keyed = await startTestServer({ API_KEYS: "ada:ada-key-of-sixteen:execute" });
    try {
      for (const path of ["//metrics", "//api//stats", "/api///files"]) {
        expect((await keyed.get(path)).status).toBe(401);
        expect((await keyed.get(path, { "x-api-key": "ada-key-of-sixteen" })).status).toBe(403);
      }
    } finally {
      await keyed.stop(0);
    }
  });
});

describe.each<[string, Record<string, string>, Record<string, string>]>([
  ["without keys, CORS_ORIGIN=none", { CORS_ORIGIN: "none" }, {}],
  ["with keys", { API_KEYS: "root:root-key-of-sixteen:admin" }, { "X-API-Key": "root-key-of-sixteen" }],
])("probes come before every check, %s", (_name, settings, key) => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer(settings);
  });
  afterAll(() => server.stop(0));
  const ask = async (path: string, ...headers: string[]) => {
    const { send, reply } = await openRawRequest(server.url, [`GET ${path} HTTP/1.0`, ...headers]);
    await send("");
    return (await reply()).split(" ")[1];
  };

  test.each([
    ["Host: evil.example"],
    ["Host: 10-0-0-7.pod.cluster.local:3000"],
    ["Origin: https://evil.example"],
    ["Sec-Fetch-Site: cross-site"],
    ["X-Forwarded-Host: evil.example"],
  ])("%s", async (header) => {
    const { hostname, port } = new URL(server.url);
    for (const path of ["/health", "/ready", "/metrics", "//ready"]) {
      const http = await import("node:http");
      const [name = "", value = ""] = header.split(": ");
      const status = await new Promise<number | undefined>((resolve, reject) => {
        const headers = { [name]: value, ...(path === "/metrics" && key) };
        http
          .get({ host: hostname, port, path, headers }, (response) => resolve(response.resume().statusCode))
          .on("error", reject);
      });
      expect([path, status]).toEqual([path, 200]);
    }
  });

  test("an old balancer that sends no Host", async () => {
    const { connect } = await import("node:net");
    const { text } = await import("node:stream/consumers");
    for (const path of ["/health", "/ready"]) {
      const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
      socket.write(`GET ${path} HTTP/1.0\r\n\r\n`);
      expect(await text(socket)).toMatch(/^HTTP\/1\.1 200 /);
    }
  });

  test("metrics need what the contract says", async () => {
    const status = await ask("/metrics");
    expect(status).toBe(Object.keys(key).length === 0 ? "200" : "401");
  });

  test("and nothing else is", async () => {
    const { reply } = await openRawRequest(server.url, ["GET /api/status HTTP/1.1", "X-Nothing: 1"]);
    expect(await reply()).toMatch(Object.keys(key).length === 0 ? / 200 / : / 401 /);
    const http = await import("node:http");
    const { hostname, port } = new URL(server.url);
    const status = await new Promise<number | undefined>((resolve, reject) => {
      http
        .get({ host: hostname, port, path: "/api/status", headers: { Host: "evil.example" } }, (response) =>
          resolve(response.resume().statusCode),
        )
        .on("error", reject);
    });
    expect(status).toBe(Object.keys(key).length === 0 ? 403 : 401);
  });
});
