import { chmodSync, cpSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { temporaryFolder } from "../../../src/shared/testing/temporary-folder.ts";
import { copyBuilt } from "../../support/built.ts";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

/**
 * What one file of a copy of `src/` does instead. Each value is JavaScript: a function of what is there now. `original` is
 * the namespace of the file as it was.
 */
export interface Replacement {
  readonly file: string;
  /** Exports by name. Only what imports them is changed, not what the file itself does with them. */
  readonly exports?: Readonly<Record<string, string>>;
  /** Methods, `Class.method`, of an exported class or of its instances. */
  readonly methods?: Readonly<Record<string, string>>;
  /** What the file imports, by specifier and name. Only for this file. */
  readonly imports?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** Imports that the values need. */
  readonly prelude?: string;
  /** Text to be changed, once each, in a file where a thread begins: it exports nothing. */
  readonly text?: readonly (readonly [from: string, to: string])[];
}

/** A copy of the source that is not ours any more, with a cache of its own. */
export class Mutant implements Disposable {
  readonly folder: string;
  readonly cacheDir: string;

  /** @throws {Error} if a replacement does not fit: the source has changed, and the mutant would be none. */
  constructor(replacements: readonly Replacement[]) {
    this.folder = temporaryFolder("mutant");
    this.cacheDir = path.join(this.folder, "cache");
    // Sandboxes may have users of their own, who read from here.
    chmodSync(this.folder, 0o755);
    cpSync(path.join(ROOT, "src"), path.join(this.folder, "src"), { recursive: true });
    symlinkSync(path.join(ROOT, "node_modules"), path.join(this.folder, "node_modules"));
    writeFileSync(path.join(this.folder, "package.json"), '{"type": "module"}');
    for (const name of ["intruder-host.ts"]) cpSync(new URL(name, import.meta.url), path.join(this.folder, name));
    for (const name of ["intruder.js", "tamper.js"])
      cpSync(new URL(name, import.meta.url), path.join(this.folder, "src/guest", name));
    copyBuilt(this.cacheDir);
    for (const [file, all] of Map.groupBy(replacements, ({ file }) => file))
      replace(path.join(this.folder, "src", file), all);
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** @throws {Error} if the source has no place for one of them. */
export function assertFits(replacement: Replacement): void {
  const text = readFileSync(path.join(ROOT, "src", replacement.file), "utf8");
  const missing = [
    ...Object.keys(replacement.exports ?? {}).filter((name) => !isExported(text, name)),
    ...Object.keys(replacement.methods ?? {}).filter((name) => !hasMethod(text, name)),
    ...Object.entries(replacement.imports ?? {}).flatMap(([specifier, names]) =>
      Object.keys(names).filter((name) => !isImported(text, specifier, name)),
    ),
    ...(replacement.text ?? []).filter(([from]) => text.split(from).length !== 2).map(([from]) => from),
  ];
  if (missing.length > 0) throw new Error(`${replacement.file} has not, or not once: ${missing.join(", ")}`);
}

const isExported = (text: string, name: string): boolean =>
  new RegExp(String.raw`^export (?:async )?(?:function|const|class) ${name}\b`, "m").test(text);

function hasMethod(text: string, name: string): boolean {
  const [className = "", method = ""] = name.split(".");
  if (!isExported(text, className)) return false;
  const [, body = ""] = new RegExp(String.raw`^export class ${className}\b([^]*?)^}`, "m").exec(text) ?? [];
  return new RegExp(String.raw`^ {2}(?:static )?(?:async )?${method}\(`, "m").test(body);
}

function isImported(text: string, specifier: string, name: string): boolean {
  const clauses = [
    ...text.matchAll(/^import (?!type)([^;]*?) from "([^"]+)";$/gm),
    ...text.matchAll(/const (\{[^}]*\}) = await import\("([^"]+)"\);$/gm),
  ];
  return (
    clauses.filter(([, names = "", from]) => from === specifier && names.split(/[\s,{}]+/).includes(name)).length === 1
  );
}

/** `place` becomes a module around the one that was there. */
function replace(place: string, all: readonly Replacement[]): void {
  for (const one of all) assertFits(one);
  const preludes = all.flatMap(({ prelude }) => (prelude === undefined ? [] : [prelude]));
  let text = readFileSync(place, "utf8");
  for (const [from, to] of all.flatMap((one) => one.text ?? [])) text = text.replace(from, () => to);
  if (all.some((one) => one.text)) text = [...preludes, text].join("\n");
  const imports = Map.groupBy(
    all.flatMap((one) => Object.entries(one.imports ?? {})),
    ([specifier]) => specifier,
  );
  for (const [specifier, replaced] of imports) {
    const beside = `${path.basename(place, ".ts")}.${specifier.replaceAll(/\W/g, "-")}.ts`;
    const names = composed(replaced.map(([, values]) => values));
    writeFileSync(path.join(path.dirname(place), beside), wrapper(specifier, preludes, names, []));
    text = text.replaceAll(`from "${specifier}"`, `from "./${beside}"`);
    text = text.replaceAll(`import("${specifier}")`, `import("./${beside}")`);
  }
  const original = place.replace(/\.ts$/, ".original.ts");
  const exports = composed(all.map((one) => one.exports ?? {}));
  const methods = all.flatMap((one) => Object.entries(one.methods ?? {}));
  writeFileSync(place, text);
  if (exports.size === 0 && methods.length === 0) return;
  renameSync(place, original);
  writeFileSync(place, wrapper(`./${path.basename(original)}`, preludes, exports, methods));
}

/** By name: all that is to be applied, first to last. */
function composed(all: readonly Readonly<Record<string, string>>[]): Map<string, string[]> {
  const byName = new Map<string, string[]>();
  for (const [name, code] of all.flatMap((values) => Object.entries(values)))
    byName.set(name, [...(byName.get(name) ?? []), code]);
  return byName;
}

/** A module that exports what `specifier` does, but for what is replaced. */
function wrapper(
  specifier: string,
  preludes: readonly string[],
  exports: ReadonlyMap<string, readonly string[]>,
  methods: readonly (readonly [name: string, code: string])[],
): string {
  const lines = [
    "// @ts-nocheck",
    `import * as original from ${JSON.stringify(specifier)};`,
    `export * from ${JSON.stringify(specifier)};`,
    ...new Set(preludes),
  ];
  for (const [name, code] of methods) {
    const [className, method] = name.split(".");
    lines.push(
      `{ const of = Object.hasOwn(original.${className}, "${method}") ? original.${className} : original.${className}.prototype;`,
      `  if (typeof of.${method} !== "function") throw new Error("${name} is no method");`,
      `  of.${method} = (${code})(of.${method}); }`,
    );
  }
  for (const [name, codes] of exports) {
    const value = codes.reduce((inner, code) => `(${code})(${inner})`, `original.${name}`);
    lines.push(
      `if (!("${name}" in original)) throw new Error("${name} is not exported");`,
      `const replaced_${name} = ${value};`,
      `export { replaced_${name} as ${name} };`,
    );
  }
  return `${lines.join("\n")}\n`;
}
