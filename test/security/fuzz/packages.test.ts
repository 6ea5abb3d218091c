import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import path from "node:path";
import fc from "fast-check";
import { expect } from "vitest";
import { PackageError } from "../../../src/packages/package-error.ts";
import { parseCoreMetadata } from "../../../src/packages/pep/metadata.ts";
import { parseRequirement } from "../../../src/packages/pep/requirements.ts";
import { parseWheelName } from "../../../src/packages/pep/wheel-name.ts";
import { SafeZip } from "../../../src/packages/safe-zip.ts";
import { parsePyodideLock } from "../../../src/packages/sources/pyodide-lock.ts";
import { makeWheel, makeZip } from "../../../src/packages/testing/wheels.ts";
import { Wheel } from "../../../src/packages/wheel.ts";
import { temporaryFolder } from "../../../src/shared/testing/temporary-folder.ts";
import { archivePathProblem } from "../../../src/wire/archive-format.ts";
import { changes, damage, damaged, survives, survivesLater } from "./damage.ts";
import { fuzz } from "./property.ts";

const folder = temporaryFolder("fuzz-packages");

function onDisk(bytes: Uint8Array): string {
  const file = path.join(folder, "package");
  writeFileSync(file, bytes);
  return file;
}

const LIMITS = {
  maxEntries: 100,
  maxPathCharacters: 100_000,
  maxFileBytes: 2 ** 20,
  maxTotalBytes: 4 * 2 ** 20,
  maxRatio: 200,
};
const ZIPS = await Promise.all([
  makeZip([]),
  makeZip([{ name: "a.txt", data: "a".repeat(500) }]),
  makeZip([
    { name: "a/b.so", data: Buffer.from([0, 97, 115, 109]) },
    { name: "../up", data: "x" },
    { name: "link", data: "/etc/passwd", mode: 0o120777 },
  ]),
]);
const WHEELS = await Promise.all([
  makeWheel({ name: "plain", version: "1.0" }),
  makeWheel({ name: "with-more", version: "2.0rc1", requires: ["a>=1; python_version < '3'"], extras: ["x"] }),
]);

fuzz(
  "zip files: any bytes are files with safe paths, each of which can be read or is damaged, or an error",
  fc.asyncProperty(fc.oneof(damaged(fc.constantFrom(...ZIPS)), fc.uint8Array()), async (bytes) => {
    const zip = await survivesLater(() => SafeZip.open(onDisk(bytes), "x.zip", LIMITS), PackageError);
    for (const { path, size } of zip?.files ?? []) {
      expect(archivePathProblem(path)).toBeNull();
      const content = await survivesLater(async () => await zip?.read(path), PackageError);
      if (content) expect(content).toHaveLength(size);
    }
    zip?.close();
  }),
);

fuzz(
  "wheels: any bytes are a wheel whose files have the hashes that it says, or an error",
  fc.asyncProperty(fc.constantFrom(...WHEELS), changes, async ({ bytes, filename }, changes) => {
    const wheel = await survivesLater(() => Wheel.open(onDisk(damage(bytes, changes)), filename, LIMITS), PackageError);
    for (const file of wheel?.files ?? []) {
      const content = await survivesLater(async () => await wheel?.read(file), PackageError);
      if (!content || file.hash === null) continue;
      expect(`sha256=${createHash("sha256").update(content).digest("base64url")}`).toBe(file.hash);
    }
    wheel?.close();
  }),
);

const name = fc.oneof(fc.string({ maxLength: 30 }), fc.constantFrom("a", "__proto__", "a-b", "../a", "a b", "A.B_c"));
const requirement = fc.oneof(
  fc.string({ maxLength: 60 }),
  fc.constantFrom("a>=1,<2; python_version < '3'", "a[b,c]==1.*", "a @ file:///etc/passwd", "a; (os_name=='x' or ("),
  fc
    .tuple(name, fc.constantFrom("", "==1", ">=1.0,<2", "[x]", "; extra == 'x'", " @ http://x/"))
    .map(([a, b]) => a + b),
);

fuzz(
  "requirements: any text is one, or an error",
  fc.property(requirement, (text) => {
    const read = survives(() => parseRequirement(text), PackageError);
    if (read) expect(read.key).toMatch(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/);
  }),
);

const header = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        "Name: a",
        "Version: 1.0",
        "Requires-Dist: b>=1",
        "License: MIT",
        " more",
        "",
        "Requires-Python: >=3",
      ),
      fc.string({ maxLength: 60 }),
      requirement.map((text) => `Requires-Dist: ${text}`),
    ),
    { maxLength: 12 },
  )
  .map((lines) => lines.join("\n"));

fuzz(
  "METADATA: any text is a distribution's, or an error",
  fc.property(header, (text) => {
    survives(() => parseCoreMetadata(text, "x"), PackageError);
  }),
);

const entry = fc.record(
  {
    name,
    version: fc.oneof(fc.constantFrom("1.0", "2"), fc.string()),
    file_name: fc.oneof(fc.constantFrom("a-1.0-py3-none-any.whl", "../a.whl", "http://x/a.whl", "a.zip"), fc.string()),
    sha256: fc.constantFrom("a".repeat(64), "A".repeat(64), "", "../../"),
    depends: fc.array(fc.oneof(requirement, fc.jsonValue()), { maxLength: 3 }),
    imports: fc.array(name, { maxLength: 3 }),
    package_type: fc.constantFrom("package", "shared_library", "static_library"),
  },
  { requiredKeys: ["name"] },
);
const info = fc.record({ abi_version: name, arch: name, platform: name, python: fc.constantFrom("3.14.0", "x", "") });
const lock = fc.oneof(
  fc
    .record({ info: fc.oneof(fc.constant({ abi_version: "a", arch: "w", platform: "e", python: "3.14.0" }), info) })
    .chain(({ info }) =>
      fc.dictionary(name, entry, { maxKeys: 4 }).map((packages) => JSON.stringify({ info, packages })),
    ),
  fc.jsonValue().map((value) => JSON.stringify(value)),
  fc.string(),
);

fuzz(
  "lock files: any text lists packages by plain file names, or is an error",
  fc.property(lock, (text) => {
    const read = survives(() => parsePyodideLock(text, "x"), PackageError);
    for (const { filename, sha256 } of read?.packages.values() ?? []) {
      expect(filename).toMatch(/^[A-Za-z0-9][^/\\]*$/);
      expect(sha256).toMatch(/^[0-9a-f]{64}$/);
    }
  }),
);

fuzz(
  "wheels' file names: any text is one, or none",
  fc.property(
    fc.oneof(
      fc.string(),
      fc.array(name, { minLength: 4, maxLength: 7 }).map((parts) => `${parts.join("-")}.whl`),
    ),
    (text) => {
      const read = parseWheelName(text);
      if (read) expect(read.tags.length).toBeGreaterThan(0);
    },
  ),
);
