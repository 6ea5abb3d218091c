/** Assembles `src/guest/memory/rewind.wat` into `src/guest/memory/rewind-module.ts`; `--check` only compares. */
import { readFileSync, writeFileSync } from "node:fs";
import wabt from "wabt";

const source = new URL("../src/guest/memory/rewind.wat", import.meta.url);
const target = new URL("../src/guest/memory/rewind-module.ts", import.meta.url);

const { parseWat } = await wabt();
// Its types do not know multi_memory yet.
const features = { multi_memory: true, simd: true, bulk_memory: true };
const parsed = parseWat("rewind.wat", readFileSync(source, "utf8"), features);
const base64 = Buffer.from(parsed.toBinary({}).buffer).toString("base64");
const text = `/** \`rewind.wat\`, assembled by \`npm run build:wat\`; do not edit. Base64. */\nexport const REWIND_MODULE =\n  "${base64}";\n`;

if (process.argv.includes("--check")) {
  if (readFileSync(target, "utf8") !== text) {
    console.error("src/guest/memory/rewind-module.ts is not what rewind.wat assembles to: run `npm run build:wat`");
    process.exitCode = 1;
  }
} else {
  writeFileSync(target, text);
}
