import express from "express";
import { describe, expect, test } from "vitest";
import { serve } from "../testing/serve.ts";
import { clientAddress, normaliseAddress } from "./client-address.ts";
import { trustProxy } from "./trust-proxy.ts";

const SPELLINGS: readonly [text: string, address: string | null][] = [
  ["192.0.2.1", "192.0.2.1"],
  [" 192.0.2.1\t", "192.0.2.1"],
  ["192.0.2.1:4711", "192.0.2.1"],
  ['"192.0.2.1:4711"', "192.0.2.1"],
  ["2001:db8::1", "2001:db8::1"],
  ["2001:DB8::1", "2001:db8::1"],
  ["[2001:db8::1]", "2001:db8::1"],
  ["[2001:db8::1]:443", "2001:db8::1"],
  ['"[2001:db8::1]:443"', "2001:db8::1"],
  ["fe80::1%eth0", "fe80::1"],
  ["::ffff:192.0.2.1", "192.0.2.1"],
  ["[::FFFF:192.0.2.1]:80", "192.0.2.1"],
  ["unknown", null],
  ["_hidden", null],
  ["", null],
  ["192.0.2.1:port", null],
  ["192.0.2.256", null],
  ["example.org", null],
  ["<script>", null],
];

test.each(SPELLINGS)("%j is the address %j", (text, address) => {
  expect(normaliseAddress(text)).toBe(address);
});

describe("request.ip", () => {
  async function ipOf(TRUST_PROXY: string, forwarded?: string): Promise<string> {
    const app = express();
    app.set("trust proxy", trustProxy({ TRUST_PROXY }));
    app.use(clientAddress);
    app.get("/", (request, response) => void response.json(request.ip));
    await using server = await serve(app);
    const headers = forwarded === undefined ? {} : { "X-Forwarded-For": forwarded };
    return (await (await fetch(server.origin, { headers })).json()) as string;
  }

  test.each(SPELLINGS)("from a trusted proxy that writes %j", async (text, address) => {
    for (const trust of ["1", "loopback"]) expect(await ipOf(trust, text)).toBe(address ?? "127.0.0.1");
  });

  test.each(SPELLINGS)("is the connection's without TRUST_PROXY, whatever %j says", async (text) => {
    expect(await ipOf("", text)).toBe("127.0.0.1");
    expect(await ipOf("192.0.2.77", text)).toBe("127.0.0.1");
  });

  test.each([
    ["1", "198.51.100.9:1, 192.0.2.1:2", "192.0.2.1"],
    ["2", "198.51.100.9:1, 192.0.2.1:2", "198.51.100.9"],
    ["loopback,192.0.2.0/24", "198.51.100.9:1,192.0.2.1:2", "198.51.100.9"],
    ["loopback,2001:db8::/32", "198.51.100.9:1, [2001:db8::5]:99", "198.51.100.9"],
    ["loopback,192.0.2.0/24", "198.51.100.9, unknown, 192.0.2.1", "192.0.2.1"],
    ["loopback", "unknown", "127.0.0.1"],
  ])("with TRUST_PROXY=%s and %j is %s", async (trust, forwarded, expected) => {
    expect(await ipOf(trust, forwarded)).toBe(expected);
  });
});
