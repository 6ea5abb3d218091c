import path from "node:path";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** Files that take longest on an idle machine, longest first: one that begins last keeps all other cores waiting. */
const LONGEST = [
  "test/packages/environments.test.ts",
  "test/sandbox/pool.test.ts",
  "test/security/escapes/escapes.test.ts",
  "test/security/escapes/package-libraries.test.ts",
  "test/operations/cli.test.ts",
  "test/security/escapes/assume-broken.test.ts",
  "test/sessions/session-kills.test.ts",
  "test/packages/compiled-packages.test.ts",
  "test/python/open-files.test.ts",
  "test/sandbox/random-sequences.test.ts",
  "test/operations/quick-start.test.ts",
  "test/python/deep-structures.test.ts",
  "test/packages/broken-environment.test.ts",
  "test/security/escapes/tampering.test.ts",
  "test/pages/pages.test.ts",
  "test/operations/audit.test.ts",
];

/** Runs the longest files first; the others as vitest would. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const index = LONGEST.findIndex((file) => moduleId.endsWith(path.normalize(`/${file}`)));
      return index < 0 ? LONGEST.length : index;
    };
    return (await super.sort(files)).toSorted((a, b) => rank(a) - rank(b));
  }
}
