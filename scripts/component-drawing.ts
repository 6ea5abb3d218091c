/** `npm run docs:components`: writes the component drawing of docs/architecture.md from the imports in `src/`. */
import { componentDrawing } from "../test/support/imports.ts";
import { rewriteIfRun, withPart } from "./written-part.ts";

/** @throws if the page has lost its markers. */
export function withComponentDrawing(page: string): string {
  return withPart(page, "components", componentDrawing());
}

await rewriteIfRun(import.meta.url, "docs/architecture.md", withComponentDrawing);
