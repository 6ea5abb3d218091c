import { describe, expect, test } from "vitest";
import { parseTarget } from "./target.ts";

describe("every spelling of a host is the host that a connection would go to", () => {
  test.each<[url: string, host: string, port: number]>([
    ["http://example.com", "example.com", 80],
    ["https://EXAMPLE.com.", "example.com", 443],
    ["https://example.com:8443/a?b#c", "example.com", 8443],
    ["http://example.com:80", "example.com", 80],
    ["http://allowed.com@evil.com/", "evil.com", 80],
    ["http://allowed.com:80@evil.com/", "evil.com", 80],
    ["http://evil.com#@allowed.com/", "evil.com", 80],
    ["http://evil.com\\@allowed.com/", "evil.com", 80],
    ["http://evil.com?@allowed.com/", "evil.com", 80],
    ["http:evil.com", "evil.com", 80],
    ["http:////evil.com", "evil.com", 80],
    [" http://evil.com ", "evil.com", 80],
    ["http://ev\til.com", "evil.com", 80],
    ["http://2130706433/", "127.0.0.1", 80],
    ["http://0x7f000001/", "127.0.0.1", 80],
    ["http://0x7f.1/", "127.0.0.1", 80],
    ["http://0177.0.0.1/", "127.0.0.1", 80],
    ["http://127.1/", "127.0.0.1", 80],
    ["http://①②⑦.⓪.⓪.①/", "127.0.0.1", 80],
    ["http://127.0.0.1./", "127.0.0.1", 80],
    ["http://%31%32%37.0.0.1/", "127.0.0.1", 80],
    ["http://0/", "0.0.0.0", 80],
    ["http://[::1]:8080/", "::1", 8080],
    ["http://[0:0:0:0:0:ffff:127.0.0.1]/", "::ffff:7f00:1", 80],
    ["http://[::ffff:169.254.169.254]/", "::ffff:a9fe:a9fe", 80],
    ["http://bücher.example/", "xn--bcher-kva.example", 80],
    ["http://exam\u00adple.com/", "example.com", 80],
    ["http://ｅｘａｍｐｌｅ。com/", "example.com", 80],
  ])("%s", (url, host, port) => {
    expect(parseTarget(url)).toMatchObject({ host, port });
    expect(new URL(parseTarget(url).origin).hostname.replace(/^\[|\]$/g, "")).toBe(host);
  });

  test.each([
    ...["", "example.com", "//example.com", "http://", "http:///", "http://[::1", "http://[fe80::1%25eth0]/"],
    ...["file:///etc/passwd", "ftp://example.com/", "gopher://x/", "data:,x", "javascript:1", "ws://x/", "unix:/x"],
    ...["http://a..b/", "http://..", "http://256.1.1.1/", "http://1.2.3.4.5/", "http://example.com:99999/"],
    ...["http://exa mple.com/", `http://${"a".repeat(64)}.com/`, `http://example.com/${"a".repeat(20_000)}`],
  ])("%s is refused", (url) => {
    expect(() => parseTarget(url)).toThrow(expect.objectContaining({ name: "NetworkFailure", kind: "refused" }));
  });

  test("the path goes as it is, credentials and fragment do not", () => {
    expect(parseTarget("https://u:p@example.com/a%20b/../c?d=é&e#f")).toEqual({
      protocol: "https:",
      host: "example.com",
      port: 443,
      origin: "https://example.com",
      path: "/c?d=%C3%A9&e",
    });
  });
});
