import { describe, expect, test } from "vitest";
import { loadPyodideLock } from "../sources/pyodide-lock.ts";
import { compatibleTags } from "./platform.ts";
import { describeTags, parseWheelName, tagRank, type WheelName } from "./wheel-name.ts";

const lock = await loadPyodideLock();
const supported = compatibleTags(lock.python);
const rank = (filename: string) => tagRank(parseWheelName(filename) as WheelName, supported);

test("every wheel in Pyodide's own lock file can be installed", () => {
  const wheels = [...lock.packages.values()].filter(({ isSharedLibrary }) => !isSharedLibrary);
  expect(wheels.length).toBeGreaterThan(250);
  expect(wheels.filter(({ filename }) => rank(filename) === null)).toEqual([]);
});

describe("tags", () => {
  test.each([
    "foo-1.0-py3-none-any.whl",
    "foo-1.0-py2.py3-none-any.whl",
    "foo-1.0-7-py314-none-any.whl",
    "foo-1.0-cp314-cp314-pyemscripten_2026_0_wasm32.whl",
    "foo-1.0-cp39-abi3-pyemscripten_2026_0_wasm32.whl",
    "foo-1.0-cp38.cp314-abi3-manylinux_2_17_x86_64.pyemscripten_2026_0_wasm32.whl",
  ])("%s fits", (filename) => {
    expect(rank(filename)).not.toBeNull();
  });

  test.each([
    ["foo-1.0-py2-none-any.whl", "py2 on any"],
    ["foo-1.0-py315-none-any.whl", "py315 on any"],
    ["foo-1.0-cp313-cp313-pyodide_2025_0_wasm32.whl", "cp313 on pyodide_2025_0_wasm32"],
    ["foo-1.0-cp313-cp313-pyemscripten_2026_0_wasm32.whl", "cp313 on pyemscripten_2026_0_wasm32"],
    ["foo-1.0-cp314-cp314-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "manylinux"],
    ["foo-1.0-cp314-cp314-win_amd64.whl", "win"],
    ["foo-1.0-cp314-cp314t-pyemscripten_2026_0_wasm32.whl", "cp314 on pyemscripten_2026_0_wasm32"],
  ])("%s does not: %s", (filename, description) => {
    expect(rank(filename)).toBeNull();
    expect(describeTags(parseWheelName(filename) as WheelName)).toBe(description);
  });

  test("a wheel for this very platform comes before the stable interface, that before pure Python", () => {
    const ranks = [
      "cp314-cp314-pyemscripten_2026_0_wasm32",
      "cp39-abi3-pyemscripten_2026_0_wasm32",
      "py3-none-any",
    ].map((tag) => rank(`foo-1.0-${tag}.whl`) as number);
    expect(ranks).toEqual(ranks.toSorted((a, b) => a - b));
    expect(new Set(ranks).size).toBe(3);
  });
});

test("names are taken apart", () => {
  expect(parseWheelName("Foo_Bar.baz-1.0.post1-12abc-py2.py3-none-any.whl")).toEqual({
    key: "foo-bar-baz",
    version: "1.0.post1",
    build: 12,
    tags: ["py2-none-any", "py3-none-any"],
  });
});

test.each([
  "foo.whl",
  "foo-1.0.whl",
  "foo-1.0-py3-none.whl",
  "foo-x-py3-none-any.whl",
  "../foo-1.0-py3-none-any.whl",
  "foo-1.0-abc-py3-none-any.whl",
  "foo-1.0-py3-none-any.zip",
  "-1.0-py3-none-any.whl",
])("%s is no wheel's name", (filename) => {
  expect(parseWheelName(filename)).toBeNull();
});
