import { describe, expect, test } from "vitest";
import { parseCoreMetadata } from "./metadata.ts";

const parse = (...lines: string[]) => parseCoreMetadata(["Name: Demo", "Version: 1.0", ...lines].join("\n"), "demo");

describe("the license", () => {
  test.each([
    [["License-Expression: MIT", "License: old text"], "MIT"],
    [["License: BSD-3-Clause"], "BSD-3-Clause"],
    [
      ["License: ====", "        Text of it", "        and more", "Classifier: License :: OSI Approved :: MIT License"],
      "MIT License",
    ],
    [["License: ====", "        Text of it", "        and more"], "Text of it"],
    [["License: UNKNOWN"], null],
    [[], null],
  ])("of %j is %j", (lines, expected) => {
    expect(parse(...lines).license).toBe(expected);
  });
});

test("only the header counts, in any case, with continued lines", () => {
  const metadata = parse("requires-dist: a>=1", "REQUIRES-DIST: b", "\t; extra == 'x'", "", "Requires-Dist: not-me");
  expect(metadata.requires.map(({ key }) => key)).toEqual(["a", "b"]);
  expect(metadata.requires[1]?.marker).not.toBeNull();
});

test("a Requires-Python that is not valid is no obstacle", () => {
  expect(parse("Requires-Python: >=3.8,").requiresPython).toBe(">=3.8");
  expect(parse("Requires-Python: three").requiresPython).toBe("");
});

test.each([
  ["Version: 1.0"],
  ["Name: demo"],
  ["Name: ../demo\nVersion: 1.0"],
  ["Name: demo\nVersion: latest"],
  ["\0\0"],
])("%j is refused", (text) => {
  expect(() => parseCoreMetadata(text, "demo")).toThrow(expect.objectContaining({ code: "package_damaged" }));
});

describe("what would take long to read", () => {
  const HEAD = "Metadata-Version: 2.1\nName: x\nVersion: 1\n";

  test("a list of clauses with much white space is read as it is", () => {
    expect(parseCoreMetadata(`${HEAD}Requires-Python: >=3${" ".repeat(400_000)},\n`, "x").requiresPython).toBe(">=3");
    const lines = `Requires-Dist: a>=3${" ".repeat(4000)},\n`.repeat(30);
    expect(parseCoreMetadata(HEAD + lines, "x").requires).toHaveLength(30);
  });

  test.each([
    ["a header of a megabyte", `${HEAD}Summary: ${"x".repeat(1_000_000)}\n`, "METADATA that is too long"],
    ["a hundred thousand requirements", `${HEAD}${"Requires-Dist: a\n".repeat(20_000)}`, "over 2000 requirements"],
    ["much in its requirements", `${HEAD}${`Requires-Dist: a; ${"x".repeat(4000)}\n`.repeat(40)}`, "are too long"],
    ["a name of a thousand letters", `Name: ${"a".repeat(1000)}\nVersion: 1\n`, "no readable name"],
  ])("%s is refused", (_what, text, message) => {
    expect(() => parseCoreMetadata(text, "x")).toThrow(message);
  });

  test("a description of megabytes below the header is passed over", () => {
    expect(parseCoreMetadata(`${HEAD}\n${"x\n".repeat(2_000_000)}`, "x").version).toBe("1");
  });
});
