import express from "express";
import { expect, test } from "vitest";
import { z } from "zod";
import { until } from "../../test/support/until.ts";
import { ClientError } from "../shared/errors.ts";
import { authenticate } from "./middleware/authentication.ts";
import { limitHeldRequests } from "./middleware/held-requests.ts";
import { errorsOf, templateOf } from "./openapi.ts";
import { jsonBody, mount, type Route, type RouteServices, reply, route } from "./routes.ts";
import { serve } from "./testing/serve.ts";

const recorded: object[] = [];
const services = {
  securityLog: { append: (event: object) => recorded.push(event) },
} as unknown as RouteServices;

const greet = route({
  method: "post",
  path: "/greet/:name/*rest",
  scope: ["execute", "files"],
  tag: "Server",
  operation: "greet",
  summary: "Greet",
  body: jsonBody(z.object({ times: z.number("Times must be a number.") }), { times: 2 }),
  reply: reply("The greeting.", { text: z.string() }, { status: 201 }),
  errors: ["file_open"],
  handler: ({ params, body, principal, record }) => {
    if (body.times > 3) throw new ClientError("file_open");
    record("file_write", { times: body.times });
    return { text: `${principal.id}: ${`${params.name}/${params.rest.join("/")} `.repeat(body.times)}` };
  },
});

const API_KEYS = "ana:a-key-of-sixteen, bob:b-key-of-sixteen:execute, cat:c-key-of-sixteen:files";

async function post(body: object, key = "a-key-of-sixteen") {
  const app = express().use(authenticate({ API_KEYS, API_KEY: "" }), express.json(), mount([greet], services));
  await using server = await serve(app);
  const response = await fetch(`${server.origin}/greet/x/y/z`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: await response.json() };
}

test("a handler has the path's names, the checked body and who asks; its value gets the envelope", async () => {
  expect(await post({ times: 2 })).toEqual({
    status: 201,
    body: { success: true, text: "ana: x/y/z x/y/z ", timestamp: expect.stringMatching(/Z$/) },
  });
  expect(recorded).toMatchObject([{ event: "file_write", principal: "ana", details: { times: 2 } }]);
});

test("a wrong body, an error of the handler and a scope that is missing, the first of them first", async () => {
  expect(await post({})).toMatchObject({ status: 400, body: { error: "Times must be a number." } });
  expect(await post({ times: 4 })).toMatchObject({ status: 409, body: { error: "The session has this file open" } });
  const lacks = (scope: string) => ({ status: 403, body: { error: `This API key lacks the scope "${scope}"` } });
  expect(await post({}, "b-key-of-sixteen")).toMatchObject(lacks("files"));
  expect(await post({}, "c-key-of-sixteen")).toMatchObject(lacks("execute"));
});

test("what an endpoint may answer follows from its key, its path, its body and its own codes", () => {
  expect(templateOf(greet)).toBe("/greet/{name}/{rest}");
  const codes = errorsOf(greet);
  for (const code of ["file_open", "unauthorized", "missing_scope", "invalid_request", "too_large", "internal"]) {
    expect(codes).toContain(code);
  }
  const { body: _body, ...rest } = greet;
  const open: Route = { ...rest, scope: "no key", path: "/greet", errors: [] };
  expect(errorsOf(open)).toEqual(["internal"]);
});

test("a request counts until its handler has ended, and a handler that asks late is told that the client has gone", async () => {
  const { promise: work, resolve: end } = Promise.withResolvers<void>();
  const reasons: unknown[] = [];
  let begun = 0;
  const slow = route({
    method: "post",
    path: "/slow",
    scope: "execute",
    tag: "Server",
    operation: "slow",
    summary: "Take long",
    reply: reply("Nothing.", {}),
    errors: [],
    handler: async (asked) => {
      begun++;
      await work;
      reasons.push(asked.signal.aborted && asked.signal.reason);
      return {};
    },
  });
  const app = express().use(
    authenticate({ API_KEYS, API_KEY: "" }),
    limitHeldRequests({ maxRequests: 2, maxBodyBytes: 1000 }),
    mount([slow], services),
  );
  await using server = await serve(app);
  const ask = async (signal?: AbortSignal, key = "a-key-of-sixteen") => {
    const headers = { authorization: `Bearer ${key}` };
    return (await fetch(`${server.origin}/slow`, { method: "POST", headers, ...(signal && { signal }) })).status;
  };
  for (const count of [1, 2]) {
    const client = new AbortController();
    const gone = ask(client.signal).catch(() => "gone");
    await until(() => begun === count);
    client.abort();
    expect(await gone).toBe("gone");
  }
  expect(await ask()).toBe(429);
  const other = ask(undefined, "b-key-of-sixteen");
  await until(() => begun === 3);
  end();
  expect(await other).toBe(200);
  const gone = expect.objectContaining({ code: "client_gone" });
  expect(reasons).toEqual([gone, gone, false]);
  await until(async () => (await ask()) === 200);
});
