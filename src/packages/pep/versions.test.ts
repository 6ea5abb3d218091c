import { expect, test } from "vitest";
import { allowsPrereleases, compareNewestFirst, satisfies } from "./versions.ts";

test.each([
  ["3", "==3.0.*", true],
  ["3.0.1", "==3.0.*", true],
  ["3.1", "==3.0.*", false],
  ["1.0.0", "==1", true],
  ["1.0+local", "==1.0", true],
  ["2.5", "~=2.2", true],
  ["3.0", "~=2.2", false],
  ["2", "~=2.0", true],
  ["1.0rc1", ">=0.9,<2", true],
  ["2.0rc1", "<2.0", false],
  ["1!1.0", ">5", true],
  ["1.0", "===1.0", true],
  ["1.0", "", true],
  ["junk", "", false],
  ["1.0", "junk", false],
])("%s lies within %s: %s", (version, specifier, expected) => {
  expect(satisfies(version, specifier)).toBe(expected);
});

test("pre-releases are asked for by naming one", () => {
  expect(allowsPrereleases(">=1.0,<2.0rc1")).toBe(true);
  expect(allowsPrereleases(">=1.0,<2.0")).toBe(false);
  expect(allowsPrereleases("")).toBe(false);
});

test("versions are ordered newest first, unreadable ones last", () => {
  const versions = ["1.9", "junk", "1.10", "1.10rc1", "1.10.post1", "1!0.1"];
  expect(versions.toSorted(compareNewestFirst)).toEqual(["1!0.1", "1.10.post1", "1.10", "1.10rc1", "1.9", "junk"]);
});
