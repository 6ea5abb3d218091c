import fc from "fast-check";
import { expect, test } from "vitest";
import * as layout from "./cache-layout.ts";

const hex = (length: number) => fc.stringMatching(new RegExp(`^[0-9a-f]{${length}}$`));
/** Names of environments: the operator's, and those that are derived from them. */
const environment = fc.stringMatching(/^[a-z0-9_-]{1,20}(\+[0-9a-f]{16})?$/);
const unique = fc.stringMatching(/^[A-Za-z0-9-]{1,20}(\.\d{1,6})?$/);

const MADE: Readonly<Record<keyof typeof layout.KINDS, fc.Arbitrary<string>>> = {
  image: fc.tuple(environment, hex(32)).map(([name, key]) => layout.imageName(name, key)),
  manifest: fc.tuple(environment, hex(32)).map(([name, key]) => layout.manifestName(layout.imageName(name, key))),
  memory: fc.tuple(environment, hex(32)).map(([name, key]) => layout.memoryName(name, key)),
  denoFolder: fc
    .tuple(fc.constantFrom("read-only", "shared"), hex(32))
    .map(([kind, key]) => layout.denoFolderName(kind, key)),
  archive: hex(64).map(layout.archiveName),
  archiveNote: hex(64).map(layout.archiveNoteName),
  wheel: hex(64).map(layout.wheelFileName),
  partial: hex(64).map(layout.partialName),
  temporary: fc
    .tuple(unique, environment, hex(32))
    .map(([id, name, key]) => layout.temporaryName(id, layout.imageName(name, key))),
};

test.each(Object.entries(MADE))("a name made for the kind %s matches that kind and no other", (kind, names) => {
  fc.assert(
    fc.property(names, (name) => {
      const matching = Object.entries(layout.KINDS).filter(([, pattern]) => pattern.test(name));
      expect(matching.map(([other]) => other)).toEqual([kind]);
    }),
  );
});
