import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const json = (name: string) => JSON.parse(readFileSync(`${ROOT}${name}`, "utf8"));

interface Locked {
  readonly version: string;
  readonly dev?: boolean;
  readonly integrity?: string;
  readonly resolved?: string;
  /** Systems that it is for. */
  readonly os?: readonly string[];
}
const locked = Object.entries(json("package-lock.json").packages as Record<string, Locked>).filter(
  ([path]) => path !== "",
);
const nameOf = (path: string) => path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length);

interface Component {
  readonly name: string;
  readonly version: string;
  readonly hashes?: readonly { readonly alg: string }[];
  readonly properties: readonly { readonly name: string; readonly value: string }[];
}

test("the bill of materials names every locked package with its hash, and marks those for development", async () => {
  const { stdout } = await promisify(execFile)("npm", ["run", "--silent", "sbom"], { cwd: ROOT, maxBuffer: 2 ** 26 });
  const { bomFormat, components } = JSON.parse(stdout) as { bomFormat: string; components: Component[] };
  expect(bomFormat).toBe("CycloneDX");
  const isForDevelopment = ({ properties }: Component) =>
    properties.some(({ name, value }) => name === "cdx:npm:package:development" && value === "true");
  const names = (of: readonly Component[]) => new Set(of.map(({ name, version }) => `${name}@${version}`));
  const lockedNames = (dev: boolean) =>
    new Set(
      locked.flatMap(([path, entry]) => ((entry.dev === true) === dev ? [`${nameOf(path)}@${entry.version}`] : [])),
    );
  // Not `npm sbom --omit dev`: it leaves out packages that production needs.
  expect(names(components)).toEqual(lockedNames(true).union(lockedNames(false)));
  // One that both need, in one version, is listed once.
  expect(names(components.filter(isForDevelopment))).toEqual(lockedNames(true));
  const hashed = locked.filter(([, { integrity }]) => integrity !== undefined).map(([path]) => nameOf(path));
  for (const { name, hashes } of components.filter(({ name }) => hashed.includes(name))) {
    expect([name, hashes?.map(({ alg }) => alg)]).toEqual([name, ["SHA-512"]]);
  }
});

test("every locked package is named with its hash, and none comes from anywhere but the registry", () => {
  expect(locked.length).toBeGreaterThan(100);
  for (const [path, { integrity, resolved, os }] of locked) {
    // Binaries for other systems, which not every registry has.
    const isForeign = os !== undefined;
    if (!isForeign || integrity !== undefined) {
      expect([path, integrity]).toEqual([path, expect.stringMatching(/^sha512-/)]);
    }
    // None from a repository, an address or a folder of somebody's.
    expect([path, resolved ?? "https://registry.npmjs.org/"]).toEqual([
      path,
      expect.stringMatching(/^https:\/\/registry\.npmjs\.org\//),
    ]);
  }
});

test("what private interfaces are leant on is pinned exactly", () => {
  const { dependencies } = json("package.json");
  for (const name of ["deno", "pyodide"]) expect(dependencies[name]).toMatch(/^\d+\.\d+\.\d+$/);
});
