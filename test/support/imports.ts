import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

export const ROOT = path.resolve(import.meta.dirname, "../..");
export const SRC = path.join(ROOT, "src");

/** Source files of `src/`, without tests and what only those use. */
export const sources: readonly string[] = readdirSync(SRC, { recursive: true, encoding: "utf8" })
  .map((file) => file.replaceAll(path.sep, "/"))
  .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts") && !file.includes("/testing/"))
  .sort();

/** Files of `src/` that one names, in imports of values and of types, and in `new URL` and `import()` as well. */
function importsOf(file: string): string[] {
  const text = readFileSync(path.join(SRC, file), "utf8");
  const known = new Set(sources);
  return Array.from(text.matchAll(/"(\.{1,2}\/[^"\n]+\.ts)"/g), ([, specifier]) =>
    path.posix.join(path.posix.dirname(file), specifier as string),
  ).filter((target) => known.has(target));
}

export const imports: ReadonlyMap<string, readonly string[]> = new Map(sources.map((file) => [file, importsOf(file)]));

export const folderOf = (file: string): string => file.slice(0, file.indexOf("/"));

/** Which folders each folder imports from. */
export function folderImports(): ReadonlyMap<string, ReadonlySet<string>> {
  const folders = new Map<string, Set<string>>();
  for (const [file, targets] of imports) {
    const from = folderOf(file);
    const to = folders.get(from) ?? new Set();
    for (const target of targets) if (folderOf(target) !== from) to.add(folderOf(target));
    folders.set(from, to);
  }
  return folders;
}

/**
 * The imports between folders as arrows of a Mermaid flowchart: `A → C` is left out where it follows from `A → B` and `B → C`.
 * What the arrows lead to is what a folder may import.
 */
export function componentDrawing(): string {
  const folders = folderImports();
  const reachable = (from: string, without: string): Set<string> => {
    const found = new Set<string>();
    const visit = (folder: string): void => {
      if (found.has(folder)) return;
      found.add(folder);
      for (const next of folders.get(folder) ?? []) visit(next);
    };
    for (const next of folders.get(from) ?? []) if (next !== without) visit(next);
    return found;
  };
  const arrows = [...folders].flatMap(([from, targets]) =>
    [...targets].filter((to) => !reachable(from, to).has(to)).map((to) => `    ${from} --> ${to}\n`),
  );
  return `\`\`\`mermaid\nflowchart TD\n${arrows.toSorted().join("")}\`\`\`\n`;
}
