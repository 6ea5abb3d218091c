import { describe, expect, test } from "vitest";
import { workspaceFolder, workspacePath } from "./paths.ts";

describe("workspacePath", () => {
  test.each([
    "/home/pyodide",
    "/home/pyodide/data.csv",
    "/tmp/a/b/c",
    "/plots/matplotlib/figure 1.png",
    "/home/pyodide/%2e%2e",
    "/home/pyodide/...",
    "/home/pyodide/__proto__",
    "/home/pyodide/C:\\x",
    "/home/pyodide/line\nbreak",
    `/home/pyodide/${"n".repeat(255)}`,
    `/tmp${`/${"n".repeat(203)}`.repeat(20)}`.slice(0, 4096),
  ])("accepts %j", (path) => {
    expect(workspacePath(path)).toBe(path);
  });

  test.each([
    "",
    "/",
    "/home",
    "/etc/passwd",
    "/homepyodide",
    "/home/pyodide2/x",
    "/tmpx",
    "home/pyodide/x",
    "../home/pyodide/x",
    "/home/pyodide/",
    "/home/pyodide//x",
    "/home/pyodide/./x",
    "/home/pyodide/.",
    "/home/pyodide/..",
    "/home/pyodide/../../etc/passwd",
    "/tmp/../home/pyodide/x",
    "/home/pyodide/a/../b",
    "/home/pyodide/nul\0byte",
    "/home/pyodide/\ud800",
    `/home/pyodide/${"n".repeat(256)}`,
    `/home/pyodide/${"é".repeat(128)}`,
    `/tmp${"/n".repeat(2047)}`,
  ])("refuses %j", (path) => {
    expect(() => workspacePath(path)).toThrow(expect.objectContaining({ status: 400, code: "invalid_path" }));
  });

  test.each([null, undefined, 7, ["/tmp/a"], { toString: () => "/tmp/a" }])("refuses %j, which is no text", (path) => {
    expect(() => workspacePath(path as never)).toThrow(expect.objectContaining({ code: "invalid_path" }));
  });
});

describe("workspaceFolder", () => {
  test.each([
    ["/mnt/data", "/home/pyodide"],
    ["/home/user/a/../b", "/home/pyodide/b"],
    ["../user/a", "/home/pyodide/a"],
    ["a", "/home/pyodide/a"],
    ["/tmp/mnt/data", "/tmp/mnt/data"],
    ["mnt/data/a", "/home/pyodide/mnt/data/a"],
  ])("takes %j for %j", (path, folder) => {
    expect(workspaceFolder(path)).toBe(folder);
  });

  test("refuses a long path before it is resolved, wherever it leads", () => {
    expect(() => workspaceFolder("a/../".repeat(900))).toThrow(expect.objectContaining({ code: "invalid_path" }));
  });

  test.each(["/mnt/database", "/home/users/a", "/mnt", "/home"])("refuses %j", (path) => {
    expect(() => workspaceFolder(path)).toThrow(expect.objectContaining({ code: "invalid_path" }));
  });
});
