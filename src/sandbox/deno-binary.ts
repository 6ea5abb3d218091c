import { createRequire } from "node:module";
import path from "node:path";
import { StartupError } from "../errors.ts";

const PACKAGES: Readonly<Record<string, string>> = {
  "linux-x64": "@deno/linux-x64-glibc",
  "linux-arm64": "@deno/linux-arm64-glibc",
  "darwin-x64": "@deno/darwin-x64",
  "darwin-arm64": "@deno/darwin-arm64",
};

/**
 * The Deno executable that npm installed for this platform: an absolute path without symbolic links.
 *
 * The package's own launcher script is passed over on purpose: it would add a Node process to every sandbox.
 *
 * @throws {StartupError} if the platform has no such package, or it is not installed.
 */
export function denoBinary(): string {
  const platform = `${process.platform}-${process.arch}`;
  const name = PACKAGES[platform];
  if (name === undefined) throw new StartupError(`Deno has no package for ${platform}; sandboxes cannot run here.`);
  const fromDeno = createRequire(createRequire(import.meta.url).resolve("deno/package.json"));
  try {
    return path.join(path.dirname(fromDeno.resolve(`${name}/package.json`)), "deno");
  } catch (cause) {
    throw new StartupError(`The package ${name} is not installed: run \`npm ci\` without \`--omit=optional\`.`, {
      cause,
    });
  }
}
