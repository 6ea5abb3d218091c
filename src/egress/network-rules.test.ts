import { describe, expect, test } from "vitest";
import { NetworkAccess, type Reveal } from "./access.ts";
import { AllowList } from "./allow-list.ts";
import { type NetworkInput, NetworkRules, networkInput } from "./network-rules.ts";
import { parseTarget } from "./target.ts";

const rulesFor = (host: string, headers: Record<string, string>): NetworkInput => ({
  rules: { [host]: [{ transform: { headers } }] },
});
const read = (input: unknown) => new NetworkRules(networkInput.parse(input));

describe("rules are read", () => {
  test.each([
    ["api.example.com", "https://api.example.com"],
    ["https://API.example.com.", "https://api.example.com"],
    ["api.example.com:443", "https://api.example.com"],
    ["api.example.com:8443", "https://api.example.com:8443"],
    ["http://intranet.example:8080", "http://intranet.example:8080"],
    ["http://intranet.example:80", "http://intranet.example"],
    ["[2606:4700::1111]", "https://[2606:4700::1111]"],
    ["bücher.de", "https://xn--bcher-kva.de"],
  ])("%s is for %s alone", (host, origin) => {
    expect([...read(rulesFor(host, { A: "1" })).hosts.keys()]).toEqual([origin]);
  });

  test.each([
    "*.example.com",
    "*",
    "https://*.example.com",
    "example.com/path",
    "example.com?query",
    "user@example.com",
    "user:password@example.com",
    "ftp://example.com",
    "example.com:99999",
    "example.com:0x50",
    "a b",
    "",
    "example.com\\evil.example",
    "x".repeat(400),
  ])("%j is no host of a rule", (host) => {
    expect(() => read(rulesFor(host, { A: "1" }))).toThrow("is not a host");
  });

  test.each([
    ["a line end", { A: "b\r\nEvil: 1" }, "has a line end"],
    ["a null", { A: "b\0" }, "has a line end"],
    ["what no header has", { A: "\u{1f511}" }, "has a line end"],
    ["no name", { "": "1" }, "is not the name of a header"],
    ["a name with a line end", { "A\r\nB": "1" }, "is not the name of a header"],
    ["Host", { Host: "evil.example" }, "is not the name of a header"],
    ["Content-Length", { "Content-Length": "1" }, "is not the name of a header"],
    ["Connection", { connection: "x" }, "is not the name of a header"],
    ["X-Forwarded-For", { "X-Forwarded-For": "127.0.0.1" }, "is not the name of a header"],
    ["Accept-Encoding, which decides whether a reply can be looked through", { "Accept-Encoding": "br" }, "is not the"],
    ["one header twice", { A: "1", a: "2" }, "is set twice"],
    ["a secret without an end", { A: "${secret:B" }, "names no secret"],
    ["a secret without a name", { A: "${secret:}" }, "names no secret"],
    ["a secret of a path", { A: "${secret:../x}" }, "names no secret"],
    ["a secret in a secret", { A: "${secret:${secret:B}}" }, "names no secret"],
    ["a secret of an object's own", { A: "${secret:__proto__}" }, "names no secret"],
  ])("%s is refused", (_what, headers, message) => {
    expect(() => read(rulesFor("example.com", headers))).toThrow(message);
  });

  test.each([
    ["no object", [], "network must be an object"],
    ["a member that has no meaning", { denyOut: [] }, 'network has no member ["denyOut"]'],
    ["hosts as a text", { allowOut: "example.com" }, "network.allowOut must be an array of hosts"],
    ["an entry that is no host", { allowOut: ["https://example.com/"] }, "is not a host"],
    ["an entry that is no text", { allowOut: [1] }, "An entry of network.allowOut must be a host"],
    ["too many hosts", { allowOut: Array(101).fill("a.example") }, "more than 100 hosts"],
    ["a transform of another kind", { rules: { "a.example": [{ transform: { url: "x" } }] } }, "network.rules: "],
    ["a rule that is no array", { rules: { "a.example": {} } }, "The rules of a host must be an array"],
    ["one host in two spellings", { rules: { "a.example": [], "A.example:443": [] } }, "twice"],
    ["a header that is too long", rulesFor("a.example", { A: "x".repeat(5000) }), "longer than 4096"],
  ])("%s is refused, and the member named", (_what, input, message) => {
    expect(() => {
      const parsed = networkInput.safeParse(input);
      if (!parsed.success) throw new Error(parsed.error.issues[0]?.message);
      new NetworkRules(parsed.data);
    }).toThrow(message);
  });

  test("what else stands in ${…} is text", async () => {
    const access = new NetworkAccess(new AllowList(["*"]), [
      { author: "caller", rules: read(rulesFor("a.example", { A: "${env:HOME} $x ${secret:B}${secret:C}." })) },
    ]);
    const reveal: Reveal = async (name, author, origin) => `<${name} ${author} ${origin}>`;
    expect(await access.headersFor(parseTarget("https://a.example/"), reveal)).toEqual([
      {
        name: "A",
        value: "${env:HOME} $x <B caller https://a.example><C caller https://a.example>.",
        secrets: [
          ["B", "<B caller https://a.example>"],
          ["C", "<C caller https://a.example>"],
        ],
      },
    ]);
  });
});

describe("levels", () => {
  const server = new AllowList(["a.example", "*.b.example"]);
  const caller = (input: NetworkInput) => ({ author: "caller" as const, rules: new NetworkRules(input) });
  const operator = (input: NetworkInput) => ({ author: "operator" as const, rules: new NetworkRules(input) });
  const can = (access: NetworkAccess, url: string) => {
    try {
      access.check(parseTarget(url));
      return true;
    } catch {
      return false;
    }
  };

  test("each narrows what is before it, and none widens", () => {
    const access = new NetworkAccess(server, [
      operator({ allowOut: ["a.example", "x.b.example"] }),
      caller({ allowOut: ["*"] }),
      caller({ allowOut: ["x.b.example", "evil.example"] }),
    ]);
    expect(can(access, "https://x.b.example/")).toBe(true);
    for (const url of ["https://a.example/", "https://evil.example/", "https://y.b.example/"]) {
      expect(can(access, url)).toBe(false);
    }
    expect(can(new NetworkAccess(server, [caller({ allowOut: [] })]), "https://a.example/")).toBe(false);
  });

  test.each([
    ["the server", [caller(rulesFor("evil.example", {}))]],
    ["its key", [operator({ allowOut: ["a.example"] }), caller(rulesFor("x.b.example", {}))]],
    ["itself", [caller({ allowOut: ["x.b.example"], ...rulesFor("a.example", {}) })]],
    ["the server, by its port", [caller(rulesFor("a.example:8443", {}))]],
  ])("a host that is not allowed by %s can have no rules", (_who, levels) => {
    expect(() => new NetworkAccess(server, levels)).toThrow("may not be reached");
  });

  test("what the operator sets no caller replaces; an execution may replace what its session sets", async () => {
    const own = operator(rulesFor("a.example", { Authorization: "operator" }));
    expect(() => new NetworkAccess(server, [own, caller(rulesFor("a.example", { authorization: "mine" }))])).toThrow(
      "the server's operator sets the header authorization",
    );
    const access = new NetworkAccess(server, [
      own,
      caller(rulesFor("a.example", { "X-A": "session", "X-B": "session" })),
      caller(rulesFor("a.example", { "x-a": "execution" })),
    ]);
    const headers = await access.headersFor(parseTarget("https://a.example/"), async () => "");
    expect(headers.map(({ name, value }) => [name, value])).toEqual([
      ["Authorization", "operator"],
      ["x-a", "execution"],
      ["X-B", "session"],
    ]);
  });

  test("a host that has rules for https is not asked by plain HTTP, unless it has rules for that", async () => {
    const access = new NetworkAccess(new AllowList(["a.example", "a.example:8443"]), [
      caller(rulesFor("a.example", { A: "${secret:B}" })),
    ]);
    expect(can(access, "https://a.example/")).toBe(true);
    expect(can(access, "http://a.example/")).toBe(false);
    // Another port is another origin: it is told nothing.
    expect(can(access, "https://a.example:8443/")).toBe(true);
    expect(await access.headersFor(parseTarget("https://a.example:8443/"), async () => "")).toEqual([]);
    const both = new NetworkAccess(server, [
      caller({ rules: { ...rulesFor("a.example", { A: "1" }).rules, "http://a.example": [] } }),
    ]);
    expect(can(both, "http://a.example/")).toBe(true);
  });
});
