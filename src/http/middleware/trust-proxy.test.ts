import express from "express";
import { describe, expect, test } from "vitest";
import { StartupError } from "../../shared/errors.ts";
import { serve } from "../testing/serve.ts";
import { trustProxy } from "./trust-proxy.ts";

describe("trustProxy", () => {
  test.each<[string, ReturnType<typeof trustProxy>]>([
    ["", false],
    ["false", false],
    ["0", false],
    ["1", 1],
    [" 2 ", 2],
    ["10.0.0.1", ["10.0.0.1"]],
    ["loopback, 10.0.0.0/8,fd00::/8", ["loopback", "10.0.0.0/8", "fd00::/8"]],
  ])("reads %j", (TRUST_PROXY, expected) => {
    expect(trustProxy({ TRUST_PROXY })).toEqual(expected);
    expect(() => express().set("trust proxy", trustProxy({ TRUST_PROXY }))).not.toThrow();
  });

  test.each([
    "true",
    "*",
    "yes",
    "all",
    "-1",
    "1.5",
    "3000",
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/33",
    "10/8",
    "10.0.0.1,",
    "proxy",
  ])("refuses %j", (TRUST_PROXY) => {
    expect(() => trustProxy({ TRUST_PROXY })).toThrow(StartupError);
    expect(() => trustProxy({ TRUST_PROXY })).toThrow(/TRUST_PROXY/);
  });

  test.each([
    ["", "127.0.0.1"],
    ["192.0.2.1", "127.0.0.1"],
    ["1", "198.51.100.2"],
    ["loopback", "198.51.100.2"],
    ["2", "198.51.100.1"],
    ["loopback,198.51.100.2", "198.51.100.1"],
  ])("with %j a request by way of two proxies has the address %s", async (TRUST_PROXY, expected) => {
    const app = express();
    app.set("trust proxy", trustProxy({ TRUST_PROXY }));
    app.get("/ip", (request, response) => void response.json(request.ip));
    await using server = await serve(app);
    const headers = { "X-Forwarded-For": "198.51.100.1, 198.51.100.2" };
    expect(await (await fetch(`${server.origin}/ip`, { headers })).json()).toBe(expected);
  });
});
