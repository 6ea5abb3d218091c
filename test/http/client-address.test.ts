import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readSecurityLog } from "../support/security-log.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

/** One client as different proxies write it. */
const ONE_CLIENT = [
  "192.0.2.7",
  "192.0.2.7:4711",
  "192.0.2.7:4712",
  "::ffff:192.0.2.7",
  '"192.0.2.7:1"',
  "[::ffff:192.0.2.7]:9",
];
const ONE_NETWORK = ["2001:db8::7", "[2001:db8::7]", "[2001:db8::8]:443", "2001:DB8::9"];

describe.each([
  ["with TRUST_PROXY", "loopback"],
  ["without", ""],
])("%s", (_name, TRUST_PROXY) => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer({
      TRUST_PROXY,
      RATE_LIMIT_MAX_REQUESTS: "1000",
      API_KEYS: "ada:ada-key-of-sixteen,root:root-key-of-sixteen:admin+stats+execute",
    });
  });
  afterAll(() => server.stop(0));
  const run = async (forwarded: string, key = "ada-key-of-sixteen") =>
    await server.post("/api/execute", { code: "1" }, { "x-forwarded-for": forwarded, "x-api-key": key });

  test("limits, statistics and the log have one client for all spellings of its address", async () => {
    const left: number[] = [];
    for (const spelling of ONE_CLIENT) left.push(Number((await run(spelling)).headers.get("ratelimit-remaining")));
    expect(left).toEqual(ONE_CLIENT.map((_, at) => 999 - at));
    const other: number[] = [];
    for (const spelling of ONE_NETWORK) other.push(Number((await run(spelling)).headers.get("ratelimit-remaining")));
    const first = TRUST_PROXY === "" ? 999 - ONE_CLIENT.length : 999;
    expect(other).toEqual(ONE_NETWORK.map((_, at) => first - at));

    const { stats } = (await server.get("/api/dashboard/stats", { "x-api-key": "root-key-of-sixteen" })).body;
    const expected = TRUST_PROXY === "" ? ["127.0.0.1"] : ["192.0.2.7", "2001:db8::7", "2001:db8::8", "2001:db8::9"];
    expect(stats.topIPs.map(({ ip }: { ip: string }) => ip).sort()).toEqual(expected);
    const lines = await readSecurityLog(server.config);
    const logged = new Set(lines.filter(({ event }) => event === "code_execution").map(({ ip }) => ip));
    expect([...logged].sort()).toEqual(expected);
  });

  test("wrong keys from one client count together", async () => {
    const refused: number[] = [];
    for (let at = 0; at < 12; at++) {
      const forwarded = `198.51.100.3:${5000 + at}`;
      refused.push((await run(forwarded, `wrong-key-number-${at}`)).status);
    }
    expect(refused.slice(-1)).toEqual([429]);
  });
});
