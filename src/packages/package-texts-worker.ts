/** The thread in which long texts of packages are read: `package-texts.ts` has the other end. */
import { parentPort } from "node:worker_threads";
import { PackageError } from "./package-error.ts";
import { type CoreMetadata, parseCoreMetadata } from "./pep/metadata.ts";
import type { PythonPlatform } from "./pep/platform.ts";
import { type IndexOffers, type IndexPage, indexOffers } from "./sources/index-offers.ts";
import { NotSimpleApi } from "./sources/simple-api.ts";

export type PackageText =
  | { readonly kind: "index"; readonly page: IndexPage; readonly key: string; readonly python: PythonPlatform }
  | { readonly kind: "metadata"; readonly text: string; readonly label: string };

/** `refusal`: what was wrong with it, for the other end to throw. */
export type ReadText =
  | { readonly value: IndexOffers | CoreMetadata }
  | {
      readonly refusal: "not-simple-api" | "package-error" | "other";
      readonly code: PackageError["code"] | null;
      readonly message: string;
    };

parentPort?.on("message", (text: PackageText) => {
  let answer: ReadText;
  try {
    answer = { value: read(text) };
  } catch (error) {
    answer = {
      refusal:
        error instanceof NotSimpleApi ? "not-simple-api" : error instanceof PackageError ? "package-error" : "other",
      code: error instanceof PackageError ? error.code : null,
      message: (error as Error).message,
    };
  }
  parentPort?.postMessage(answer);
});

function read(text: PackageText): IndexOffers | CoreMetadata {
  return text.kind === "index"
    ? indexOffers(text.page, text.key, text.python)
    : parseCoreMetadata(text.text, text.label);
}
