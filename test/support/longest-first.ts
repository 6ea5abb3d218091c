import path from "node:path";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** Files that take longest on an idle machine, longest first: one that begins last keeps all other cores waiting. */
const LONGEST = [
  "test/environments.test.ts",
  "test/pool.test.ts",
  "test/escapes/escapes.test.ts",
  "test/escapes/package-libraries.test.ts",
  "test/cli.test.ts",
  "test/escapes/assume-broken.test.ts",
  "test/session-kills.test.ts",
  "test/compiled-packages.test.ts",
  "test/open-files.test.ts",
  "test/random-sequences.test.ts",
  "test/quick-start.test.ts",
  "test/deep-structures.test.ts",
  "test/broken-environment.test.ts",
  "test/escapes/tampering.test.ts",
  "test/pages.test.ts",
  "test/audit.test.ts",
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
