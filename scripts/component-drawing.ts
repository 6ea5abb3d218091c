/** `npm run docs:components`: writes the component drawing of docs/architecture.md from the imports in `src/`. */
import { componentDrawing } from "../test/support/imports.ts";
import { rewriteIfRun, withPart } from "./written-part.ts";

await rewriteIfRun(import.meta.url, "docs/architecture.md", (page) => withPart(page, "components", componentDrawing()));
