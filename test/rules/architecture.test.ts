import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { anchorOf } from "../../scripts/decision-index.ts";
import { folderOf, imports, ROOT, SRC, sources } from "../support/imports.ts";

/** The folders of `src/`, in the order in which the README lists them. */
const listed = Array.from(
  readFileSync(path.join(ROOT, "README.md"), "utf8").matchAll(/^ {4}src\/([\w-]+)\/ /gm),
  ([, folder]) => folder as string,
);

test("the README lists each folder of src, and there is no file beside them", () => {
  expect([...listed].sort()).toEqual(readdirSync(SRC).sort());
});

test("imports point down the README's list, never up", () => {
  const edges = Array.from(imports, ([file, targets]) => targets.map((target) => [file, target] as const)).flat();
  expect(edges.length).toBeGreaterThan(500);
  const upward = edges.filter(([file, target]) => listed.indexOf(folderOf(target)) < listed.indexOf(folderOf(file)));
  expect(upward.map((edge) => edge.join(" → "))).toEqual([]);
});

test("no file imports itself by way of others", () => {
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (file: string, above: readonly string[]): void => {
    const at = above.indexOf(file);
    if (at >= 0) circles.push([...above.slice(at), file].join(" → "));
    if (at >= 0 || done.has(file)) return;
    for (const target of imports.get(file) ?? []) visit(target, [...above, file]);
    done.add(file);
  };
  for (const file of sources) visit(file, []);
  expect(circles).toEqual([]);
});

test("only files of wire/ are loaded by both the host and the guest", () => {
  const reached = new Set<string>();
  const visit = (file: string): void => {
    if (reached.has(file)) return;
    reached.add(file);
    const text = readFileSync(path.join(SRC, file), "utf8");
    const types = new Set(Array.from(text.matchAll(/import type [^;]*? from "([^"]+)"/g), ([, from]) => from));
    for (const target of imports.get(file) ?? []) {
      const specifier = path.posix.relative(path.posix.dirname(file), target);
      if (!types.has(specifier.startsWith(".") ? specifier : `./${specifier}`)) visit(target);
    }
  };
  visit("guest/main.ts");
  visit("guest/io/watcher.ts");
  const shared = [...reached].filter((file) => !file.startsWith("guest/"));
  expect(shared.sort()).toEqual([
    "wire/archive-format.ts",
    "wire/display-limits.ts",
    "wire/frames.ts",
    "wire/image-format.ts",
    "wire/import-rules.ts",
    "wire/messages.ts",
    "wire/protocol-error.ts",
  ]);
});

test("files that READMEs and comments of src name are there", () => {
  const all = readdirSync(SRC, { recursive: true, encoding: "utf8" }).map((file) => file.replaceAll(path.sep, "/"));
  const folders = new Set(all);
  const missing: string[] = [];
  for (const file of all.filter((name) => /\.(md|ts|py)$/.test(name))) {
    const text = readFileSync(path.join(SRC, file), "utf8");
    for (const [, name] of text.matchAll(/`(?:src\/)?([\w-]+(?:\/[\w-]+)*\.(?:ts|py|wat))`/g)) {
      const isThere = [...folders].some((other) => other === name || other.endsWith(`/${name}`));
      if (!isThere && !name?.startsWith("site-packages/")) missing.push(`${file}: ${name}`);
    }
  }
  expect(missing).toEqual([]);
});

test("the state machines that docs/architecture.md draws have the states that the source has", () => {
  const page = readFileSync(path.join(ROOT, "docs/architecture.md"), "utf8");
  const drawings = Array.from(page.matchAll(/```mermaid\nstateDiagram-v2\n([^`]+)```/g), ([, drawing = ""]) => drawing);
  const arrowsOf = (drawing: string | undefined) =>
    Array.from((drawing ?? "").matchAll(/^ +([\w[\]*]+) --> ([\w[\]*]+)/gm), ([, from, to]) => `${from} → ${to}`);
  const statesOf = (drawing: string | undefined) =>
    new Set(
      arrowsOf(drawing)
        .flatMap((arrow) => arrow.split(" → "))
        .filter((state) => state !== "[*]"),
    );
  const slot = readFileSync(path.join(SRC, "executor/slot.ts"), "utf8");
  const next = /^const NEXT: .* = \{\n([^}]+)\};/m.exec(slot)?.[1] ?? "";
  const steps = Array.from(next.matchAll(/^ {2}(\w+): \[(.*)\],$/gm), ([, from, to = ""]) =>
    Array.from(to.matchAll(/\w+/g), ([state]) => `${from} → ${state}`),
  ).flat();
  expect(steps.length).toBeGreaterThan(7);
  expect(arrowsOf(drawings[0])).toEqual(expect.arrayContaining(steps));
  expect(statesOf(drawings[0])).toEqual(new Set(Array.from(next.matchAll(/^ {2}(\w+):/gm), ([, state]) => state)));
  const run = readFileSync(path.join(SRC, "sessions/session-run.ts"), "utf8");
  const states = Array.from(run.matchAll(/^ {2}\| \{ readonly at: "(\w+)"/gm), ([, state]) => state);
  expect(statesOf(drawings[1])).toEqual(new Set(states));
});

const GUIDE = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].concat(
  readdirSync(path.join(ROOT, "docs")).map((file) => `docs/${file}`),
);

test.each(GUIDE)("files and anchors that %s names are there", (page) => {
  const text = readFileSync(path.join(ROOT, page), "utf8");
  const named = Array.from(text.matchAll(/`((?:src|test|web|bench|scripts|examples)\/[\w./-]+)`/g), ([, file]) => file);
  const isThere = (file: string) => existsSync(path.join(ROOT, file));
  expect(named.filter((file) => !isThere(file as string))).toEqual([]);
  const links = Array.from(text.matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)/g), ([, file = "", anchor]) => ({
    file: file === "" ? page : path.posix.join(path.posix.dirname(page), file),
    anchor,
  }));
  const broken = links.filter(
    ({ file, anchor }) => !isThere(file) || (anchor !== undefined && !anchorsOf(file).includes(anchor)),
  );
  expect(broken).toEqual([]);
});

function anchorsOf(page: string): string[] {
  const text = readFileSync(path.join(ROOT, page), "utf8");
  return Array.from(text.matchAll(/^#+ (.+)$/gm), ([, title = ""]) => anchorOf(title));
}

/** Being rewritten: the description of a route moves beside the route. */
const STILL_LONG = ["http/openapi.ts"];

test("a file of more than 400 lines says in its first line why it is one", () => {
  const long = sources.filter((file) => readFileSync(path.join(SRC, file), "utf8").split("\n").length > 401);
  const isExplained = (file: string) =>
    /^\/\/ Over 400 lines: .{20,}\n/.test(readFileSync(path.join(SRC, file), "utf8"));
  expect(long.filter((file) => !isExplained(file) && !STILL_LONG.includes(file))).toEqual([]);
});

test("what writes a line of the security log for each event is known: all else, such as what answers user code's calls, is folded", () => {
  const callers = sources.filter((file) => /[lL]og\??\s*\.append\(/.test(readFileSync(path.join(SRC, file), "utf8")));
  expect(callers).toEqual(["http/routes.ts", "http/websocket/connection.ts", "service/execution-service.ts"]);
  // One line for each execution, which is a request.
  const service = readFileSync(path.join(SRC, "service/execution-service.ts"), "utf8");
  expect(service.match(/\.append\(/g)).toHaveLength(1);
});
