import { createHash } from "node:crypto";
import yazl from "yazl";

export interface ZipEntry {
  readonly name: string;
  readonly data: Uint8Array | string;
  /** Unix mode, type bits included. */
  readonly mode?: number;
}

/** A zip file in memory. Entries' names may be ones that no honest tool writes. */
export async function makeZip(entries: readonly ZipEntry[]): Promise<Buffer> {
  const zip = new yazl.ZipFile();
  const renamed = new Map<string, string>();
  for (const [index, { name, data, mode }] of entries.entries()) {
    // The library refuses such names: write another of the same length, and set the bytes right below.
    const isStrange = /\.\.|\\|^\/|\0/.test(name) || entries.findIndex((other) => other.name === name) !== index;
    const written = isStrange ? `~${index}`.padEnd(Buffer.byteLength(name), "~") : name;
    if (isStrange) renamed.set(written, name);
    zip.addBuffer(Buffer.from(data), written, { mode: mode ?? 0o100644, mtime: new Date(0), compress: true });
  }
  zip.end();
  const chunks: Buffer[] = [];
  for await (const chunk of zip.outputStream as AsyncIterable<Buffer>) chunks.push(chunk);
  const bytes = Buffer.concat(chunks);
  for (const [written, name] of renamed)
    for (let at = bytes.indexOf(written); at !== -1; at = bytes.indexOf(written, at + 1)) bytes.write(name, at, "utf8");
  return bytes;
}

export interface WheelRecipe {
  readonly name: string;
  readonly version: string;
  readonly requires?: readonly string[];
  readonly requiresPython?: string;
  readonly extras?: readonly string[];
  readonly license?: string;
  /** Python, ABI and platform; default `py3-none-any`. */
  readonly tag?: string;
  /** In the zip; default: one module named as the package. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
  /** Not listed in RECORD. */
  readonly unlisted?: readonly ZipEntry[];
  /** Changes RECORD before it is packed. */
  readonly record?: (text: string) => string;
}

export interface MadeWheel {
  readonly filename: string;
  readonly bytes: Buffer;
  readonly sha256: string;
  readonly metadata: string;
  readonly recipe: WheelRecipe;
}

export async function makeWheel(recipe: WheelRecipe): Promise<MadeWheel> {
  const { name, version, tag = "py3-none-any" } = recipe;
  const escaped = name.replace(/[-_.]+/g, "_");
  const folder = `${escaped}-${version}.dist-info`;
  const metadata = [
    "Metadata-Version: 2.1",
    `Name: ${name}`,
    `Version: ${version}`,
    ...(recipe.license === undefined ? [] : [`License: ${recipe.license}`]),
    ...(recipe.requiresPython === undefined ? [] : [`Requires-Python: ${recipe.requiresPython}`]),
    ...(recipe.extras ?? []).map((extra) => `Provides-Extra: ${extra}`),
    ...(recipe.requires ?? []).map((text) => `Requires-Dist: ${text}`),
    "",
    "Made by a test.",
  ].join("\n");
  const files: Record<string, string | Uint8Array> = {
    ...(recipe.files ?? { [`${escaped}.py`]: `VERSION = "${version}"\n` }),
    [`${folder}/METADATA`]: metadata,
    [`${folder}/WHEEL`]: `Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: ${tag}\n`,
  };
  const lines = Object.entries(files).map(([path, data]) => {
    const hash = createHash("sha256").update(data).digest("base64url");
    return `${path},sha256=${hash},${Buffer.byteLength(data)}`;
  });
  const record = `${[...lines, `${folder}/RECORD,,`].join("\n")}\n`;
  const bytes = await makeZip([
    ...Object.entries(files).map(([path, data]) => ({ name: path, data })),
    ...(recipe.unlisted ?? []),
    { name: `${folder}/RECORD`, data: recipe.record?.(record) ?? record },
  ]);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  return { filename: `${escaped}-${version}-${tag}.whl`, bytes, sha256, metadata, recipe };
}
