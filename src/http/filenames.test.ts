import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkFilename, sanitiseFilename } from "./filenames.ts";

const invalid = expect.objectContaining({ status: 400, code: "invalid_filename", message: "Invalid filename" });

describe("checkFilename", () => {
  test.each(["data.csv", "a b.csv", "100%.csv", "50%25.csv", "ünï.csv", ".hidden", "-rf", "%zz", "a.b.c", "__proto__"])(
    "accepts %j",
    (name) => {
      expect(checkFilename(name)).toBe(name);
    },
  );

  test.each([
    "",
    ".",
    "..",
    "a..b",
    "../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "nul\0.csv",
    "%2e%2e",
    "%2E%2E%2Fetc",
    ".%2e",
    "..%2fx",
    "a%2Fb",
    "a%5cb",
    "a%5Cb",
    "a%00.csv",
    "%252e%252e%252fetc",
    "a%252Fb",
    "a%255Cb",
    "a%2500.csv",
    "a%25252fb",
    "%%32%65.",
    "%zz%2e%2e",
    "100%%2f",
    "lone\ud800",
    "n".repeat(256),
    "é".repeat(128),
  ])("refuses %j", (name) => {
    expect(() => checkFilename(name)).toThrow(invalid);
  });

  test("refuses a traversal at whatever depth it is encoded", () => {
    const encode = (name: string, depth: number): string =>
      depth === 0
        ? name
        : encode(
            name.replace(/[^a-z0-9]/gi, (c) => `%${hex(c)}`),
            depth - 1,
          );
    const hex = (c: string) => c.charCodeAt(0).toString(16).padStart(2, "0");
    for (const bad of ["..", "/", "\\", "\0"]) {
      for (let depth = 0; depth < 12; depth++) expect(() => checkFilename(encode(`a${bad}b`, depth))).toThrow(invalid);
    }
  });
});

describe("sanitiseFilename", () => {
  test.each([
    ["data.csv", "data.csv"],
    ["sales 2024 (final).csv", "sales_2024__final_.csv"],
    ["Ünï.csv", "_n_.csv"],
    ["😀.csv", "__.csv"],
    ["line\r\nbreak\0.csv", "line__break_.csv"],
    ["../../x.csv", "_.__._x.csv"],
    ["..%2Fx.csv", "_._2Fx.csv"],
    ["a..b.csv", "a_.b.csv"],
    ["a..csv", "a_.csv"],
    ["C:\\dir\\x.csv", "C__dir_x.csv"],
    ["", "_"],
    [".", "_"],
    ["..", "_."],
    [".csv", ".csv"],
    ["-rf.csv", "-rf.csv"],
  ])("%j becomes %j", (name, expected) => {
    expect(sanitiseFilename(name)).toBe(expected);
  });

  test("cuts long names and keeps the extension, if it is one", () => {
    expect(sanitiseFilename(`${"n".repeat(300)}.csv`)).toBe(`${"n".repeat(196)}.csv`);
    expect(sanitiseFilename(`n.${"e".repeat(300)}`)).toBe(`n.${"e".repeat(198)}`);
    // The cut falls right behind a dot, in front of the extension's.
    expect(sanitiseFilename(`${"n".repeat(195)}.${"n".repeat(100)}.csv`)).not.toContain("..");
  });

  test("makes of any name one that can be asked for", () => {
    const anyName = fc.oneof(
      fc.string({ unit: "binary", maxLength: 300 }),
      fc.string({ unit: fc.constantFrom(".", "/", "\\", "%", "2", "e", "a", "\0"), maxLength: 300 }),
    );
    fc.assert(
      fc.property(anyName, (name) => {
        const safe = sanitiseFilename(name);
        expect(safe).toMatch(/^[a-zA-Z0-9._-]{1,200}$/);
        expect(checkFilename(safe)).toBe(safe);
        expect(sanitiseFilename(safe)).toBe(safe);
      }),
    );
  });
});
