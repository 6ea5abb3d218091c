import { describe, expect, test } from "vitest";
import { PackageError } from "./package-error.ts";
import { parseCoreMetadata } from "./pep/metadata.ts";
import { normaliseName, parseRequirement } from "./pep/requirements.ts";
import { type ResolveOptions, resolve, resolveAvailable } from "./resolver.ts";
import { SearchEffort } from "./search-effort.ts";
import { type ListedFile, type PackageSource, selectFiles } from "./sources/package-source.ts";
import { loadPyodideLock } from "./sources/pyodide-lock.ts";

const { python } = await loadPyodideLock();

/** `"name version"` → its requirements, or a file name that is listed → null. */
type Catalogue = Readonly<Record<string, readonly string[] | null>>;

/** A source that holds what is written down in the test; choosing is what is tested here, fetching elsewhere. */
function source(catalogue: Catalogue, description = "the catalogue"): PackageSource & { readonly asked: string[] } {
  const asked: string[] = [];
  return {
    description,
    asked,
    find: async (key) => {
      asked.push(key);
      const files = Object.entries(catalogue).map(([label, requires]): ListedFile => {
        const [name = "", version = ""] = label.split(" ");
        const filename = requires === null ? label : `${name.replaceAll("-", "_")}-${version}-py3-none-any.whl`;
        const text = `Name: ${name}\nVersion: ${version}\n${(requires ?? []).map((item) => `Requires-Dist: ${item}\n`).join("")}`;
        return {
          filename,
          requiresPython: "",
          yanked: false,
          toCandidate: (parsed) => ({
            ...parsed,
            name,
            filename,
            format: "wheel",
            source: description,
            sha256: null,
            location: { path: filename },
            requirements: async () => parseCoreMetadata(text, filename),
          }),
        };
      });
      const own = files.filter(({ filename }) => normaliseName(filename.split(/-\d/)[0] as string) === key);
      return selectFiles(key, own, python);
    },
  };
}

async function chosen(catalogue: Catalogue, requested: string[], options: Partial<ResolveOptions> = {}) {
  const { packages } = await resolve(requested.map(parseRequirement), {
    sources: [source(catalogue)],
    python,
    ...options,
  });
  return packages.map(({ candidate }) => `${candidate.name} ${candidate.version}`);
}

const failing = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

describe("choosing", () => {
  test("the newest version of everything that is needed", async () => {
    const catalogue = {
      "a 1.9": [],
      "a 1.10": ["b>=1", "win-only ; sys_platform == 'win32'"],
      "b 1.0": [],
      "b 2.0": [],
    };
    expect(await chosen(catalogue, ["a"])).toEqual(["a 1.10", "b 2.0"]);
  });

  test("a constraint of one package holds for the others", async () => {
    const catalogue = { "a 1": ["c"], "b 1": ["c<2"], "c 1": [], "c 2": [] };
    expect(await chosen(catalogue, ["a", "b"])).toEqual(["a 1", "b 1", "c 1"]);
  });

  test("an older version is taken where the newest leads nowhere", async () => {
    const catalogue = { "a 2": ["c>=2"], "a 1": ["c<2"], "b 1": ["c<2"], "c 1": [], "c 2": [] };
    expect(await chosen(catalogue, ["a", "b"])).toEqual(["a 1", "b 1", "c 1"]);
  });

  test("cycles are fine", async () => {
    const catalogue = { "a 1": ["b"], "b 1": ["c"], "c 1": ["a>=1", "c"] };
    expect(await chosen(catalogue, ["a"])).toEqual(["a 1", "b 1", "c 1"]);
  });

  test("a cycle that contradicts itself is an error", async () => {
    await expect(chosen({ "a 1": ["b"], "b 1": ["a>1"] }, ["a"])).rejects.toThrow(
      failing("package_conflict", /b 1 \(needed by a 1\) needs "a>1", but "a" was asked for/),
    );
  });

  test("extras bring what they need, also when they are asked for late", async () => {
    const catalogue = { "a 1": ["x ; extra == 'more'"], "b 1": ["a[More]"], "x 1": [] };
    expect(await chosen(catalogue, ["a"])).toEqual(["a 1"]);
    expect(await chosen(catalogue, ["a[more]"])).toEqual(["a 1", "x 1"]);
    expect(await chosen(catalogue, ["a", "b"])).toEqual(["a 1", "b 1", "x 1"]);
  });

  test("extras of a package that is part of the environment bring what they need", async () => {
    const fixed = [{ name: "A", version: "1" }];
    const catalogue = {
      "a 2": ["z ; extra == 'more'"],
      "a 1": ["b", "x>=1 ; extra == 'more'", "a[more] ; extra == 'all'", "a[all] ; extra == 'all'"],
      "x 1": [],
      "x 0": [],
    };
    expect(await chosen(catalogue, ["a"], { fixed })).toEqual([]);
    expect(await chosen(catalogue, ["a[more]"], { fixed })).toEqual(["x 1"]);
    expect(await chosen(catalogue, ["a[all]"], { fixed })).toEqual(["x 1"]);
    expect(await chosen(catalogue, ["a[more]"], { fixed: [...fixed, { name: "x", version: "3" }] })).toEqual([]);
    await expect(chosen({ "a 1": ["x ; extra == 'more'"] }, ["a[more]"], { fixed })).rejects.toThrow(
      failing("package_not_found", /"a\[more\]" cannot be installed: a 1 needs "x", but no source has this package/),
    );
    await expect(chosen({ "a 2": [] }, ["a[more]"], { fixed })).rejects.toThrow(
      failing("package_not_found", /has A 1, and no source says what its extras need/),
    );
  });

  test("an extra that a package has not is named, if it was asked for by name", async () => {
    const catalogue = { "a 1": ["x ; extra == 'more'", "y; extra == 'Other_One'"], "b 1": ["a[nothing]"], "c 1": [] };
    await expect(chosen(catalogue, ["a[less,more]"])).rejects.toThrow(
      failing("package_not_found", /a 1 has the extras more, other-one, and not less/),
    );
    await expect(chosen(catalogue, ["c[any]"])).rejects.toThrow(
      failing("package_not_found", /c 1 has no extras, and not any/),
    );
    await expect(chosen(catalogue, ["a[less]"], { fixed: [{ name: "a", version: "1" }] })).rejects.toThrow(
      failing("package_not_found", /and not less/),
    );
    expect(await chosen(catalogue, ["b"])).toEqual(["a 1", "b 1"]);
  });

  test("what a lock file says of dependencies holds, and what the file itself says of extras", async () => {
    const plain = source({ "a 1": ["b"], "b 1": [], "x 1": [] });
    const locked: PackageSource = {
      description: "a lock file",
      find: async (key) => {
        const offers = await plain.find(key);
        if (key !== "a") return offers;
        const stated = async () =>
          parseCoreMetadata("Name: a\nVersion: 1\nRequires-Dist: nowhere\nRequires-Dist: x; extra == 'more'\n", "a");
        return { ...offers, candidates: offers.candidates.map((candidate) => ({ ...candidate, stated })) };
      },
    };
    const options = { sources: [locked] };
    expect(await chosen({}, ["a"], options)).toEqual(["a 1", "b 1"]);
    expect(await chosen({}, ["a[more]"], options)).toEqual(["a 1", "b 1", "x 1"]);
    // Asked for when the package is chosen already.
    expect(await chosen({}, ["a", "a[more]"], options)).toEqual(["a 1", "b 1", "x 1"]);
  });

  test("pre-releases only if named, or if there is nothing else", async () => {
    const catalogue = { "a 1.0": [], "a 2.0rc1": [], "b 1.0b1": [] };
    expect(await chosen(catalogue, ["a"])).toEqual(["a 1.0"]);
    expect(await chosen(catalogue, ["a>=2.0rc1"])).toEqual(["a 2.0rc1"]);
    expect(await chosen(catalogue, ["b"])).toEqual(["b 1.0b1"]);
  });

  test("the first source that has a fitting version wins, later ones are not asked", async () => {
    const first = source({ "a 1": [] });
    const second = source({ "a 2": [] });
    expect(await chosen({}, ["a"], { sources: [first, second] })).toEqual(["a 1"]);
    expect(second.asked).toEqual([]);
    expect(await chosen({}, ["a>1"], { sources: [first, second] })).toEqual(["a 2"]);
  });

  test("what the environment has is not installed again, and not replaced", async () => {
    const fixed = [{ name: "NumPy", version: "2.4.3" }];
    expect(await chosen({ "a 1": ["numpy>=2"] }, ["a"], { fixed })).toEqual(["a 1"]);
    await expect(chosen({ "a 1": ["numpy>=3"], "numpy 3.0": [] }, ["a"], { fixed })).rejects.toThrow(
      failing(
        "package_conflict",
        /a 1 needs "numpy>=3", but this environment has NumPy 2.4.3, which cannot be replaced/,
      ),
    );
  });

  test("what was installed before stays as long as it will do", async () => {
    const { packages } = await resolve([parseRequirement("a==1")], { sources: [source({ "a 1": [] })], python });
    const preferred = packages.map(({ candidate }) => candidate);
    expect(await chosen({ "a 1": [], "a 2": [] }, ["a"], { preferred })).toEqual(["a 1"]);
    expect(await chosen({ "a 1": [], "a 2": [] }, ["a>1"], { preferred })).toEqual(["a 2"]);
  });

  test("an old version that states its needs unreadably is passed over", async () => {
    expect(await chosen({ "a 2": ["b (>=1.*.x)"], "a 1": [] }, ["a"])).toEqual(["a 1"]);
  });
});

describe("what is optional", () => {
  const optional = (text: string) => ({ ...parseRequirement(text), optional: true as const });
  const resolved = async (catalogue: Catalogue, options: Partial<ResolveOptions> = {}) => {
    const wanted = [parseRequirement("app"), optional("zones>=2")];
    const { packages } = await resolve(wanted, { sources: [source(catalogue)], python, ...options });
    return packages.map(({ candidate }) => `${candidate.name} ${candidate.version}`);
  };

  test("comes along where it is available", async () => {
    expect(await resolved({ "app 1": [], "zones 2": ["more"], "more 1": [] })).toEqual(["app 1", "more 1", "zones 2"]);
  });

  test.each<[string, Catalogue, string[]]>([
    ["is nowhere", { "app 1": [] }, ["app 1"]],
    ["is there in no fitting version", { "app 1": [], "zones 1": [] }, ["app 1"]],
    ["needs what is nowhere", { "app 1": [], "zones 2": ["nothing"] }, ["app 1"]],
    ["is needed in another version", { "app 1": ["zones<2"], "zones 2": [], "zones 1": [] }, ["app 1", "zones 1"]],
  ])("is gone without where it %s", async (_what, catalogue, expected) => {
    expect(await resolved(catalogue)).toEqual(expected);
  });

  test("does not replace what the environment has", async () => {
    const fixed = [{ name: "zones", version: "1" }];
    expect(await resolved({ "app 1": [], "zones 2": [] }, { fixed })).toEqual(["app 1"]);
  });
});

describe("what is not available is said", () => {
  test("no such package, and who needs it", async () => {
    const catalogue = { "a 1": ["b"], "b 2": ["missing-thing>=1"] };
    await expect(chosen(catalogue, ["a"])).rejects.toThrow(
      failing(
        "package_not_found",
        /^"a" cannot be installed: b 2 \(needed by a 1\) needs "missing-thing>=1", but no source has this package \(asked: the catalogue\)\.$/,
      ),
    );
  });

  test("only other versions", async () => {
    await expect(chosen({ "a 1": [], "a 2": [], "b 1": ["a<2"] }, ["a>1", "b"])).rejects.toThrow(
      failing("package_conflict", /b 1 needs "a<2", but "a>1" was asked for/),
    );
    await expect(chosen({ "a 1": [], "a 2": [] }, ["a==7"])).rejects.toThrow(
      failing("package_conflict", /^"a==7" cannot be installed: there is 2, 1, but ==7 is needed\.$/),
    );
  });

  test("only a source distribution and wheels for other platforms", async () => {
    const catalogue = {
      "torch-2.9.tar.gz": null,
      "torch-2.9-cp314-cp314-manylinux_2_28_x86_64.whl": null,
      "torch-2.9-cp314-cp314-win_amd64.whl": null,
    };
    await expect(chosen(catalogue, ["torch"])).rejects.toThrow(
      failing(
        "package_not_found",
        /^"torch" cannot be installed: it needs a wheel for Pyodide or for pure Python, and all there is are wheels for other platforms \(manylinux, win\) and source distributions\.$/,
      ),
    );
  });

  test("only files behind https at addresses of http", async () => {
    const unsafe: PackageSource = {
      description: "index example.org",
      find: async () => ({
        candidates: [],
        unusable: [
          { filename: "a.whl", reason: "unsafe-address", detail: "at http://files.example, behind an index of https" },
        ],
      }),
    };
    await expect(resolve([parseRequirement("a")], { sources: [unsafe], python })).rejects.toThrow(
      failing("package_not_found", /all there is are files at http:\/\/files\.example, behind an index of https\.$/),
    );
  });

  test("packages are sought all at once, and what is needed by one as soon as that is known", async () => {
    const catalogue = { "a 1": ["c", "d"], "b 1": [], "c 1": ["e"], "d 1": [], "e 1": [] };
    let underWay = 0;
    let most = 0;
    let rounds = 0;
    const inner = source(catalogue);
    const slow: PackageSource = {
      description: "slow",
      find: async (key) => {
        if (underWay++ === 0) rounds++;
        most = Math.max(most, underWay);
        await new Promise((resolve) => setTimeout(resolve, 20));
        underWay--;
        return await inner.find(key);
      },
    };
    expect(await chosen({}, ["a", "b"], { sources: [slow] })).toEqual(["a 1", "b 1", "c 1", "d 1", "e 1"]);
    expect(most).toBeGreaterThan(1);
    expect(rounds).toBeLessThan(5);
    expect(inner.asked.toSorted()).toEqual(["a", "b", "c", "d", "e"]);
  });

  test("a later source is not asked ahead for what an earlier one has", async () => {
    const [own, index] = [source({ "a 1": ["b"], "b 1": [] }), source({ "a 9": [], "b 9": [] }, "index")];
    await chosen({}, ["a"], { sources: [own, index] });
    expect(index.asked).toEqual([]);
  });

  test("a source that cannot be asked does not hide the others, but is told of", async () => {
    const broken: PackageSource = {
      description: "index example.org",
      find: async () => {
        throw new PackageError("package_source_unavailable", "example.org answered 503.");
      },
    };
    const good = source({ "a 1": [] });
    const resolution = await resolve([parseRequirement("a")], { sources: [broken, good], python });
    expect(resolution.packages.map(({ candidate }) => candidate.name)).toEqual(["a"]);
    expect(resolution.warnings).toEqual(["example.org answered 503."]);
    await expect(chosen({}, ["b"], { sources: [good, broken] })).rejects.toThrow(/example\.org answered 503\.$/);
  });

  test("in a list where some is better than nothing, the rest is resolved", async () => {
    const catalogue = { "a 1": [], "b 1": ["nowhere"], "c 1": ["a"] };
    const { packages, failures } = await resolveAvailable(["a", "b", "c"].map(parseRequirement), {
      sources: [source(catalogue)],
      python,
    });
    expect(packages.map(({ candidate }) => candidate.name)).toEqual(["a", "c"]);
    expect([...failures.keys()]).toEqual(["b"]);
    expect(failures.get("b")?.message).toMatch(/b 1 needs "nowhere"/);
  });
});

test("a missing package is not looked for once for each version of all others", async () => {
  const catalogue: Record<string, string[]> = {};
  for (const name of ["a", "b", "c", "d", "e"])
    for (let version = 1; version <= 20; version++) catalogue[`${name} ${version}`] = name === "e" ? ["nowhere"] : [];
  const packages = source(catalogue);
  const started = packages.asked.length;
  await expect(chosen({}, ["a", "b", "c", "d", "e"], { sources: [packages] })).rejects.toThrow(
    /"e" cannot be installed: e 20 needs "nowhere"/,
  );
  expect(packages.asked.length - started).toBeLessThan(10);
});

test("versions that can never agree end in an error, not in an endless search", async () => {
  const catalogue: Record<string, string[]> = {};
  const names = ["a", "b", "c", "d", "e", "f"];
  for (const [index, name] of names.entries())
    for (let version = 1; version <= 15; version++)
      catalogue[`${name} ${version}`] = names
        .filter((_, other) => other !== index)
        .map((other) => `${other}!=${version}`);
  catalogue["z 1"] = names.map((name) => `${name}<2`);
  await expect(chosen(catalogue, [...names, "z"])).rejects.toThrow(
    expect.objectContaining({ code: "package_conflict" }),
  );
});

describe("a whole graph of packages that state as much as they may", () => {
  /** `count` packages that each state `each` requirements of one that is chosen already. */
  function joins(count: number, each: number, requirement: (of: number, number: number) => string): PackageSource {
    const packages = Array.from({ length: count }, (_, of) => `p${of}`);
    const catalogue: Record<string, readonly string[]> = { "root 1": ["base", ...packages], "base 1": [] };
    for (const [of, name] of packages.entries())
      catalogue[`${name} 1`] = Array.from({ length: each }, (_, number) => requirement(of, number));
    return source(catalogue);
  }

  /** Counts as one that has no limit of its own. */
  const counting = () => new SearchEffort(Number.POSITIVE_INFINITY, () => new Error("no limit"));

  async function unitsFor(count: number, requirement: (of: number, number: number) => string): Promise<number> {
    const effort = counting();
    const sources = [joins(count, 400, requirement)];
    const { packages } = await resolve([parseRequirement("root")], { sources, python, effort });
    expect(packages).toHaveLength(count + 2);
    return effort.units;
  }

  test.each([
    ["versions", (_of: number, number: number) => `base>=0.${number}`],
    ["extras that are not there", (of: number, number: number) => `base[e${of}x${number}]`],
    ["names", (of: number) => `p${of}`],
  ])("costs as much for each as for one: %s", async (_what, requirement) => {
    const [one, eight] = [await unitsFor(2, requirement), await unitsFor(16, requirement)];
    expect(eight / one).toBeLessThan(9);
  });

  test("takes a level of recursion for each choice, not for each demand", async () => {
    const sources = [joins(9, 1_999, (_of, number) => `base>=0.${number % 1000}`)];
    const { packages } = await resolve([parseRequirement("root")], { sources, python });
    expect(packages).toHaveLength(11);
  });

  test("has limits for all packages together: requirements, names, extras, effort", async () => {
    const install = (sources: PackageSource[], effort?: SearchEffort) =>
      resolve([parseRequirement("root")], { sources, python, ...(effort && { effort }) });
    await expect(install([joins(11, 1_999, () => "base")])).rejects.toThrow(
      failing("package_too_large", /the packages would state over 20000 requirements/),
    );
    await expect(install([joins(1, 1_999, (of, number) => `other${of}x${number}`)])).rejects.toThrow(
      failing("package_too_large", /over 300 packages would be needed/),
    );
    const many = Array.from({ length: 300 }, (_, number) => number);
    const extras = source({
      "root 1": many.map((number) => `base[e${number}]`),
      "base 1": many.map((number) => `base ; extra == 'e${number}'`),
    });
    await expect(install([extras])).rejects.toThrow(failing("package_too_large", /over 256 extras of base/));
    const effort = new SearchEffort(1_000, () => new Error("too much"));
    await expect(install([joins(2, 1_999, () => "base")], effort)).rejects.toThrow("too much");
    expect(effort.units).toBeLessThan(2_000);
  });

  test("is not asked for all at once, nor after its end", async () => {
    let underWay = 0;
    let most = 0;
    const names = Array.from({ length: 100 }, (_, number) => `n${number}`);
    const inner = source({
      "root 1": [...names, "missing"],
      ...Object.fromEntries(names.map((name) => [`${name} 1`, []])),
    });
    const counted: PackageSource = {
      description: "counted",
      find: async (key) => {
        most = Math.max(most, ++underWay);
        const offers = await inner.find(key);
        await new Promise((resolve) => setImmediate(resolve));
        underWay--;
        return offers;
      },
    };
    await expect(resolve(["missing", "root"].map(parseRequirement), { sources: [counted], python })).rejects.toThrow(
      /"missing" cannot be installed/,
    );
    await expect(resolve([parseRequirement("root")], { sources: [counted], python })).rejects.toThrow(/missing/);
    // One more: the one whose turn it is.
    expect(most).toBeLessThanOrEqual(2 * 9);
  });

  test("ends when its signal is aborted, with the signal's reason", async () => {
    const stop = new AbortController();
    const inner = joins(5, 1_000, () => "base");
    const stopping: PackageSource = {
      description: "stopping",
      find: async (key) => {
        if (key === "p4") stop.abort(new Error("stopped"));
        return await inner.find(key);
      },
    };
    await expect(
      resolve([parseRequirement("root")], { sources: [stopping], python, signal: stop.signal }),
    ).rejects.toThrow("stopped");
  });

  test("takes turns of the event loop that no item makes longer than one item is", async () => {
    const effort = new SearchEffort(Number.POSITIVE_INFINITY, () => new Error("no limit"));
    let turns = 0;
    let isCounting = true;
    const count = () => {
      turns++;
      if (isCounting) setImmediate(count);
    };
    setImmediate(count);
    for (let item = 0; item < 100; item++) await effort.spend(1_000);
    isCounting = false;
    expect(turns).toBeGreaterThanOrEqual(50);
  });
});
