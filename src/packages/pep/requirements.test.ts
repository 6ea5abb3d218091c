import { describe, expect, test } from "vitest";
import { loadPyodideLock } from "../sources/pyodide-lock.ts";
import { markerEnvironment } from "./platform.ts";
import { applies, normaliseName, parseRequirement } from "./requirements.ts";

const environment = markerEnvironment((await loadPyodideLock()).python);
const counts = (text: string, extras: string[] = []) => applies(parseRequirement(text), environment, extras);

describe("parseRequirement", () => {
  test.each([
    ["numpy", "numpy", [], ""],
    ["  Typing_Extensions.X ", "typing-extensions-x", [], ""],
    ["requests[Socks, use_chardet]>=2.8.1,==2.8.*", "requests", ["socks", "use-chardet"], ">=2.8.1,==2.8.*"],
    ["foo (>=1.0,<2)", "foo", [], ">=1.0,<2"],
    ["foo~=1.4.2;python_version<'3'", "foo", [], "~=1.4.2"],
    ["foo[]", "foo", [], ""],
    ["foo>=1,", "foo", [], ">=1"],
  ])("reads %s", (text, key, extras, specifier) => {
    expect(parseRequirement(text)).toMatchObject({ key, extras, specifier });
  });

  test.each([
    "",
    "-foo",
    "foo bar",
    "foo[bar",
    "foo[b!r]",
    "foo>=",
    "foo>=1.x",
    "foo==1.0;",
    "foo; python_version",
    "foo; python_version > ",
    "foo; nonsense == '1'",
    "foo; __proto__ == '1'",
    "foo; (python_version > '3'",
    "foo; python_version > '3' extra",
    "foo; 'a' not 'b'",
    "../foo",
    `foo; ${"(".repeat(100)}python_version > '3'${")".repeat(100)}`,
    `foo; ${"python_version > '3' and ".repeat(1000)}python_version > '3'`,
  ])("refuses %s", (text) => {
    expect(() => parseRequirement(text)).toThrow(expect.objectContaining({ code: "package_invalid_requirement" }));
  });

  test.each(["foo @ https://example.com/foo.whl", "foo@file:///etc/passwd"])(
    "refuses the direct reference %s",
    (text) => {
      expect(() => parseRequirement(text)).toThrow(/packages come from the sources that the server is set up with/);
    },
  );

  test.each([
    ["https://example.com/foo-1-py3-none-any.whl", /come from the sources/],
    ["http://example.com/foo", /come from the sources/],
    ["file:///tmp/foo.whl", /come from the sources/],
    ["emfs:./foo.whl", /come from the sources/],
    ["git+https://github.com/a/foo", /come from the sources/],
    ["git+ssh://git@github.com/a/foo.git@v1#egg=foo", /come from the sources/],
    ["git@github.com:a/foo.git", /come from the sources/],
    ["./foo", /come from the sources/],
    ["/tmp/foo", /come from the sources/],
    ["~/foo", /come from the sources/],
    ["C:\\foo", /come from the sources/],
    ["foo-1.0-py3-none-any.whl", /come from the sources/],
    ["foo-1.0.tar.gz", /come from the sources/],
    ["a/foo", /come from the sources/],
    ["-e .", /options such as -r, -e/],
    ["-r requirements.txt", /options such as -r, -e/],
    ["--index-url https://example.com", /options such as -r, -e/],
    ["foo bar", /more than one requirement/],
    ["foo, bar", /no version specifier/],
    ["foo=1.0", /a version is written with ==/],
    ["", /does not begin with a package name/],
  ])("says why %s is none", (text, reason) => {
    expect(() => parseRequirement(text)).toThrow(
      expect.objectContaining({ code: "package_invalid_requirement", message: expect.stringMatching(reason) }),
    );
  });

  test.each(["foo;python_version>'3'", "foo [bar]", "zip", "foo.zip2", "a-b.c_d", "foo ( >= 1 )"])(
    "still reads %s",
    (text) => {
      expect(parseRequirement(text).text).toBe(text);
    },
  );
});

test("normaliseName follows PEP 503", () => {
  expect(["Friendly-Bard", "friendly.bard", "FRIENDLY_BARD", "friendly--._bard"].map(normaliseName)).toEqual(
    Array.from({ length: 4 }, () => "friendly-bard"),
  );
});

describe("environment markers", () => {
  test.each([
    ["foo; python_version >= '3.10'", true],
    ["foo; python_version < '3.9'", false],
    ["foo; python_full_version >= '3.14.0'", true],
    ["foo; '3.8' <= python_version", true],
    ["foo; sys_platform == 'emscripten'", true],
    ["foo; sys_platform != 'emscripten' and platform_system != 'Windows'", false],
    ["foo; sys_platform == 'win32' or (os_name == 'posix' and platform_machine == \"wasm32\")", true],
    ["foo; sys_platform == 'win32' or os_name == 'posix' and platform_machine == 'x86_64'", false],
    ["foo; platform_system in 'Linux Emscripten'", true],
    ["foo; 'linux' not in sys_platform", true],
    ["foo; platform_python_implementation == 'CPython'", true],
    ["foo; os.name == 'nt'", false],
    ["foo; implementation_name == 'pypy'", false],
  ])("%s is %s", (text, expected) => {
    expect(counts(text)).toBe(expected);
  });

  test("extras count when they are asked for, however they are written", () => {
    expect(counts("foo; extra == 'Use_Chardet'")).toBe(false);
    expect(counts("foo; extra == 'Use_Chardet'", ["use-chardet"])).toBe(true);
    expect(counts("foo; extra == 'a' and python_version < '3'", ["a"])).toBe(false);
    expect(counts("foo", ["a"])).toBe(true);
  });
});
