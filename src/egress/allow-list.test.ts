import { describe, expect, test } from "vitest";
import { StartupError } from "../shared/errors.ts";
import { AllowList } from "./allow-list.ts";

test.each<[entry: string, host: string, port: number, allowed: boolean]>([
  ["api.example.com", "api.example.com", 443, true],
  ["api.example.com", "api.example.com", 80, true],
  ["api.example.com", "api.example.com", 8080, false],
  ["api.example.com", "example.com", 443, false],
  ["api.example.com", "x.api.example.com", 443, false],
  ["api.example.com", "api.example.com.evil.com", 443, false],
  ["API.Example.COM.", "api.example.com", 443, true],
  ["api.example.com:8443", "api.example.com", 8443, true],
  ["api.example.com:8443", "api.example.com", 443, false],
  ["*.data.gov", "a.data.gov", 443, true],
  ["*.data.gov", "a.b.data.gov", 443, true],
  ["*.data.gov", "data.gov", 443, false],
  ["*.data.gov", "evildata.gov", 443, false],
  ["*.data.gov", "data.gov.evil.com", 443, false],
  ["*.data.gov:8080", "a.data.gov", 8080, true],
  ["*.data.gov:8080", "a.data.gov", 80, false],
  ["bücher.example", "xn--bcher-kva.example", 443, true],
  ["*", "anything.example", 443, true],
  ["*", "anything.example", 22, false],
  ["*:22", "anything.example", 22, true],
  ["10.0.0.5:9000", "10.0.0.5", 9000, true],
  ["[::1]:8080", "::1", 8080, true],
  ["[0:0::1]", "::1", 80, true],
])("%s: %s port %d is allowed: %s", (entry, host, port, allowed) => {
  expect(new AllowList(["other.example", entry]).allows(host, port)).toBe(allowed);
});

describe("what is no host", () => {
  test.each([
    ...["https://api.example.com", "api.example.com/path", "*.", "a.*.com", "*example.com", "*.*", "**", "*.10.0.0.1"],
    ...["a b", "a@b", "host:0", "host:65536", "host:abc", "host:", ":80", "[::1", "a..b", "exa$mple.com"],
  ])("%s stops the server from starting", (entry) => {
    expect(() => new AllowList([entry])).toThrow(StartupError);
    expect(() => new AllowList([entry])).toThrow(JSON.stringify(entry));
  });
});
