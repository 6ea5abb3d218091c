import { createRequire } from "node:module";
import path from "node:path";
import { StartupError } from "./errors.ts";

const PLATFORM_PACKAGES: Readonly<Record<string, string>> = {
  "linux-x64": "@deno/linux-x64-glibc",
  "linux-arm64": "@deno/linux-arm64-glibc",
  "darwin-x64": "@deno/darwin-x64",
  "darwin-arm64": "@deno/darwin-arm64",
  "win32-x64": "@deno/win32-x64",
  "win32-arm64": "@deno/win32-arm64",
};

/**
 * Path of the Deno executable that npm installed. Not the `deno` command: that one is a script that needs an install step.
 *
 * @throws {StartupError} if there is none for this machine.
 */
export function denoBinary(): string {
  return path.join(denoFolder(), process.platform === "win32" ? "deno.exe" : "deno");
}

/** Version of that executable, as npm installed it: `2.9.6`. @throws as {@link denoBinary}. */
export function denoVersion(): string {
  return createRequire(import.meta.url)(path.join(denoFolder(), "package.json")).version;
}

function denoFolder(): string {
  const platform = `${process.platform}-${process.arch}`;
  const name = PLATFORM_PACKAGES[platform];
  if (name === undefined) throw new StartupError(`There is no Deno for ${platform}.`);
  const require = createRequire(createRequire(import.meta.url).resolve("deno/package.json"));
  try {
    return path.dirname(require.resolve(`${name}/package.json`));
  } catch (cause) {
    throw new StartupError(
      `${name} is not installed; run \`npm ci\` on this machine (without --omit=optional). On Alpine Linux (musl) use a glibc image.`,
      { cause },
    );
  }
}
