import { inspect } from "node:util";
import express from "express";
import { describe, expect, test, vi } from "vitest";
import { StartupError } from "../../shared/errors.ts";
import type { Credential } from "../recognised-protocol.ts";
import { mount, type RouteServices } from "../routes.ts";
import { serve, type TestServer } from "../testing/serve.ts";
import { authenticate, checkBinding, derivedToken, parseApiKeys, principalOf, requireScope } from "./authentication.ts";
import { KeyGuesses } from "./key-guesses.ts";

const KEYS = {
  API_KEYS:
    "alice:a-secret-of-sixteen, bob:b-secret-of-sixteen:execute, ops:o-secret-of-sixteen:stats+admin, bob:b-second-of-sixteen:files",
  API_KEY: "",
};

function whoAmI(config: { API_KEYS: string; API_KEY: string }): Promise<TestServer> {
  const app = express();
  app.use(authenticate(config));
  app.get("/whoami", (_request, response) => {
    const { id, name, scopes } = principalOf(response);
    response.json({ id, name, scopes: [...scopes] });
  });
  app.get("/execute", requireScope("execute"), (_request, response) => void response.json({ success: true }));
  return serve(app);
}

async function get(server: TestServer, path: string, headers: Record<string, string> = {}) {
  const response = await fetch(server.origin + path, { headers });
  return { status: response.status, headers: response.headers, body: await response.json() };
}

describe("a protocol's credentials", () => {
  /** `/token/:purpose` derives a token; a request with `x-token` presents one for its path's purpose. */
  const withProtocol = (config = KEYS, guesses?: KeyGuesses) => {
    const app = express();
    app.use((_request, response, next) => {
      const credentialOf = (request: express.Request): Credential | undefined => {
        const token = request.get("x-token");
        const key = request.get("x-other-key");
        if (key !== undefined) return { kind: "key", key };
        return token === undefined ? undefined : { kind: "token", token, purpose: request.path.split("/")[2] ?? "" };
      };
      response.locals.protocol = { credentialOf };
      next();
    });
    app.use(authenticate(config, guesses));
    app.get("/token/:purpose", (request, response) => {
      response.json({ token: derivedToken(response, request.params.purpose), id: principalOf(response).id });
    });
    return serve(app);
  };

  test("a token is good for its purpose, its key and nothing else", async () => {
    await using server = await withProtocol();
    const { body } = await get(server, "/token/one", { "X-API-Key": "a-secret-of-sixteen" });
    const { token } = body as { token: string };
    expect(token).toMatch(/^[\w-]{43}$/);
    expect(await get(server, "/token/one", { "x-token": token })).toMatchObject({
      status: 200,
      body: { id: "alice", token },
    });
    for (const [path, presented] of [
      ["/token/two", token],
      ["/token/one", `${token}x`],
      ["/token/one", "a-secret-of-sixteen"],
      ["/token/one", ""],
    ] as const) {
      const refused = await fetch(server.origin + path, { headers: { "x-token": presented } });
      expect(refused.status).toBe(401);
    }
    await using others = await withProtocol({ API_KEYS: "alice:another-secret-of-alice", API_KEY: "" });
    expect((await fetch(`${others.origin}/token/one`, { headers: { "x-token": token } })).status).toBe(401);
  });

  test("a token counts only where that is said", async () => {
    const app = express();
    app.use(({ headers }, { locals }, next) => {
      const credentialOf = (): Credential => ({ kind: "token", token: String(headers["x-token"]), purpose: "one" });
      locals.protocol = { credentialOf };
      next();
    });
    app.use(authenticate(KEYS));
    const endpoint = { method: "get", scope: "any key", reply: { send: null } } as const;
    const handler = ({ response }: { response: express.Response }) => {
      response.json({ token: derivedToken(response, "one") });
    };
    const routes = [
      { ...endpoint, path: "/key", handler },
      { ...endpoint, path: "/token", handler, takesDerived: true },
    ];
    app.use(mount(routes, {} as RouteServices));
    await using server = await serve(app);
    const { body } = await get(server, "/key", { "X-API-Key": "a-secret-of-sixteen" });
    const { token } = body as { token: string };
    expect((await get(server, "/token", { "x-token": token })).status).toBe(200);
    for (const path of ["/key", "/KEY", "/key/"]) {
      expect((await get(server, path, { "x-token": token })).status).toBe(401);
    }
  });

  test("a token is its key for the limit of guesses, which remembers the key alone", async () => {
    const guesses = new KeyGuesses({ maxFailures: 2, redis: null });
    const remembered = vi.spyOn(guesses, "succeeded");
    await using server = await withProtocol(KEYS, guesses);
    const { body } = await get(server, "/token/one", { "X-API-Key": "a-secret-of-sixteen" });
    for (let n = 0; n < 3; n++) await get(server, "/token/one", { "X-API-Key": `wrong-${n}` });
    const { token } = body as { token: string };
    expect((await get(server, "/token/one", { "x-token": token })).status).toBe(200);
    expect((await get(server, "/token/one", { "x-token": `${token}x` })).status).toBe(429);
    expect((await get(server, "/token/one", { "X-API-Key": "b-secret-of-sixteen" })).status).toBe(429);
    expect(new Set(remembered.mock.calls.map(([, digest]) => digest.toString("hex"))).size).toBe(1);
  });

  test("a key may be where the protocol has it", async () => {
    await using server = await withProtocol();
    const { status, body } = await get(server, "/token/one", { "x-other-key": "b-second-of-sixteen" });
    expect({ status, body }).toMatchObject({ status: 200, body: { id: "bob" } });
  });
});

describe("authenticate", () => {
  test("without keys makes everybody the anonymous principal, whatever they send", async () => {
    await using server = await whoAmI({ API_KEYS: "", API_KEY: "" });
    for (const headers of [{}, { Authorization: "Bearer x" }, { "X-API-Key": "alice" }]) {
      const { status, body } = await get(server, "/whoami", headers);
      expect(status).toBe(200);
      expect(body).toEqual({
        id: "anonymous",
        name: "anonymous",
        scopes: ["execute", "files", "packages", "secrets", "stats", "admin"],
      });
    }
    expect((await get(server, "/execute")).status).toBe(200);
  });

  test.each<[string, Record<string, string>, string, string[]]>([
    [
      "Bearer",
      { Authorization: "Bearer a-secret-of-sixteen" },
      "alice",
      ["execute", "files", "packages", "secrets", "stats"],
    ],
    ["bearer in any case", { Authorization: "bEARER  o-secret-of-sixteen" }, "ops", ["stats", "admin"]],
    ["X-API-Key", { "X-API-Key": "b-secret-of-sixteen" }, "bob", ["execute"]],
    ["a second key of one principal", { "X-API-Key": "b-second-of-sixteen" }, "bob", ["files"]],
    [
      "X-API-Key next to another scheme",
      { Authorization: "Basic eA==", "X-API-Key": "a-secret-of-sixteen" },
      "alice",
      ["execute", "files", "packages", "secrets", "stats"],
    ],
  ])("takes %s", async (_name, headers, id, scopes) => {
    await using server = await whoAmI(KEYS);
    const { status, body } = await get(server, "/whoami", headers);
    expect(status).toBe(200);
    expect(body).toEqual({ id, name: id, scopes });
  });

  test.each<[string, Record<string, string>, string, string]>([
    ["nothing", {}, "Bearer", "Authentication required"],
    ["an empty key", { "X-API-Key": "" }, "Bearer", "Authentication required"],
    ["another scheme", { Authorization: "Basic YS1zZWNyZXQ=" }, "Bearer", "Authentication required"],
    ["a scheme alone", { Authorization: "Bearer " }, "Bearer", "Authentication required"],
    ["a wrong key", { Authorization: "Bearer a-secreT-of-sixteen" }, 'Bearer error="invalid_token"', "Invalid API key"],
    [
      "a key's beginning",
      { Authorization: "Bearer a-secret-of-sixtee" },
      'Bearer error="invalid_token"',
      "Invalid API key",
    ],
    [
      "more than a key",
      { "X-API-Key": "a-secret-of-sixteen:execute" },
      'Bearer error="invalid_token"',
      "Invalid API key",
    ],
    ["a name for a key", { "X-API-Key": "alice" }, 'Bearer error="invalid_token"', "Invalid API key"],
    [
      "two keys in one",
      { "X-API-Key": "a-secret-of-sixteen, b-secret-of-sixteen" },
      'Bearer error="invalid_token"',
      "Invalid API key",
    ],
    [
      "a wrong bearer before a right X-API-Key",
      { Authorization: "Bearer x", "X-API-Key": "a-secret-of-sixteen" },
      'Bearer error="invalid_token"',
      "Invalid API key",
    ],
    ["10 kB", { "X-API-Key": "x".repeat(10_000) }, 'Bearer error="invalid_token"', "Invalid API key"],
  ])("refuses %s with 401", async (_name, headers, challenge, error) => {
    await using server = await whoAmI(KEYS);
    for (const path of ["/whoami", "/execute"]) {
      const reply = await get(server, path, headers);
      expect(reply.status).toBe(401);
      expect(reply.headers.get("WWW-Authenticate")).toBe(challenge);
      expect(reply.body).toEqual({ success: false, error, timestamp: expect.any(String) });
    }
  });

  test("does not take a key from the URL", async () => {
    await using server = await whoAmI(KEYS);
    expect((await get(server, "/whoami?api_key=a-secret-of-sixteen&access_token=a-secret-of-sixteen")).status).toBe(
      401,
    );
  });

  test("takes API_KEY for the principal `default` with every scope, with any characters", async () => {
    const key = "k:e,y+ ü= and more of it";
    await using server = await whoAmI({ API_KEYS: "alice:a-secret-of-sixteen", API_KEY: key });
    const sent = Buffer.from(key).toString("latin1");
    const { body } = await get(server, "/whoami", { "X-API-Key": sent });
    expect(body).toEqual({
      id: "default",
      name: "default",
      scopes: ["execute", "files", "packages", "secrets", "stats", "admin"],
    });
  });

  test("a route that forgot it fails instead of letting everybody in", async () => {
    const app = express();
    app.get("/execute", requireScope("execute"), (_request, response) => void response.json({}));
    await using server = await serve(app);
    expect((await get(server, "/execute")).status).toBe(500);
  });
});

describe("requireScope", () => {
  test("lets the scope through, and refuses another with 403", async () => {
    await using server = await whoAmI(KEYS);
    expect((await get(server, "/execute", { "X-API-Key": "b-secret-of-sixteen" })).status).toBe(200);
    for (const key of ["o-secret-of-sixteen", "b-second-of-sixteen"]) {
      const { status, body } = await get(server, "/execute", { "X-API-Key": key });
      expect(status).toBe(403);
      expect(body).toMatchObject({ success: false, error: 'This API key lacks the scope "execute"' });
    }
  });
});

describe("parseApiKeys", () => {
  test("keeps no key in memory", () => {
    const keys = parseApiKeys({ API_KEYS: "alice:a-secret-of-sixteen", API_KEY: "d-secret-of-sixteen" });
    expect(keys).toHaveLength(2);
    expect(inspect(keys, { depth: 9 })).not.toContain("of-sixteen");
    for (const { digest } of keys) expect(digest.toString("latin1")).not.toContain("secret");
  });

  test.each([
    "s3cret-of-sixteen",
    "alice:",
    ":s3cret-of-sixteen",
    "alice::execute",
    "alice:s3cret-of-sixteen:",
    "alice:s3cret-of-sixteen:execute:more",
    "alice:s3cret-of-sixteen:root",
    "alice:part:s3cret-of-sixteen",
    "alice:s3cret-of-sixteen:execute+",
    "al ice:s3cret-of-sixteen",
    "../x:s3cret-of-sixteen",
    "anonymous:s3cret-of-sixteen",
    "bob:b,alice:s3cret-of-sixteen,carol:s3cret-of-sixteen",
    `${"n".repeat(65)}:s3cret-of-sixteen`,
  ])("refuses %j, and does not show the key", (API_KEYS) => {
    const parse = () => parseApiKeys({ API_KEYS, API_KEY: "" });
    expect(parse).toThrow(StartupError);
    expect(parse).not.toThrow(/s3cret/);
    expect(parse).toThrow(/API_KEYS/);
  });

  test("refuses keys of less than 16 characters, does not show them, and says how to make one", () => {
    const parse = (API_KEYS: string, API_KEY = "") => parseApiKeys({ API_KEYS, API_KEY });
    const short = "s3cret-of-fiftee";
    expect(short).toHaveLength(16);
    expect(parse(`alice:${short}`)).toHaveLength(1);
    expect(parse("", short)).toHaveLength(1);
    for (const [keys, key] of [
      [`alice:${short},bob:${short.slice(1)}`, ""],
      ["", short.slice(1)],
      ["a:b", ""],
    ] as const) {
      expect(() => parse(keys, key)).toThrow(/16 characters.*openssl rand/);
      expect(() => parse(keys, key)).toThrow(StartupError);
      expect(() => parse(keys, key)).not.toThrow(/3cret/);
    }
  });

  test("refuses API_KEY that API_KEYS has too", () => {
    expect(() => parseApiKeys({ API_KEYS: "alice:s3cret-of-sixteen", API_KEY: "s3cret-of-sixteen" })).toThrow(
      StartupError,
    );
  });
});

describe("checkBinding", () => {
  const off = { API_KEYS: "", API_KEY: "", ALLOW_ANONYMOUS: false };

  test.each(["127.0.0.1", "127.8.9.10", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"])(
    "lets %s pass",
    (HOST) => {
      expect(() => checkBinding({ ...off, HOST })).not.toThrow();
    },
  );

  test.each(["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "example.com", "localhost.example.com", "127.1", "0"])(
    "refuses %s without keys, unless asked for by name",
    (HOST) => {
      expect(() => checkBinding({ ...off, HOST })).toThrow(StartupError);
      expect(() => checkBinding({ ...off, HOST })).toThrow(/ALLOW_ANONYMOUS=true/);
      expect(() => checkBinding({ ...off, HOST, ALLOW_ANONYMOUS: true })).not.toThrow();
      expect(() => checkBinding({ ...off, HOST, API_KEY: "k".repeat(16) })).not.toThrow();
      expect(() => checkBinding({ ...off, HOST, API_KEYS: `alice:${"k".repeat(16)}` })).not.toThrow();
      expect(() => checkBinding({ ...off, HOST, API_KEYS: " , " })).toThrow(StartupError);
    },
  );
});
