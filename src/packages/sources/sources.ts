import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { StartupError } from "../../shared/errors.ts";
import type { Config } from "../../shared/settings.ts";
import type { HttpFetcher } from "../fetcher.ts";
import type { WheelStore } from "../wheel-store.ts";
import { FolderSource } from "./folder.ts";
import { IndexSource } from "./package-index.ts";
import type { PackageSource } from "./package-source.ts";
import { PyodideSource } from "./pyodide.ts";
import type { PyodideLock } from "./pyodide-lock.ts";

type SourceSettings = Pick<Config, "PACKAGE_DIR" | "PYODIDE_INDEX_URL" | "PACKAGE_INDEX_URL">;

/**
 * The sources that the settings name, in the order in which they are asked: the local folder of wheels, Pyodide's packages
 * (CDN, mirror or folder), the Python package index.
 *
 * @throws {StartupError} if an address is none.
 */
export async function createPackageSources(
  settings: SourceSettings,
  { lock, remote, store }: { lock: PyodideLock; remote: HttpFetcher; store: WheelStore },
): Promise<readonly PackageSource[]> {
  const { PACKAGE_DIR, PYODIDE_INDEX_URL, PACKAGE_INDEX_URL } = settings;
  const sources: PackageSource[] = [];
  if (PACKAGE_DIR !== "") sources.push(new FolderSource(PACKAGE_DIR, "the package folder", lock));
  if (PYODIDE_INDEX_URL === "")
    sources.push(new PyodideSource(await pyodideCdn(), lock, remote, { mayBringLock: false, store }));
  else if (isAddress(PYODIDE_INDEX_URL))
    sources.push(new PyodideSource(PYODIDE_INDEX_URL, lock, remote, { mayBringLock: true, store }));
  else sources.push(new FolderSource(folderOf(PYODIDE_INDEX_URL), "the folder of Pyodide packages", lock));
  if (PACKAGE_INDEX_URL !== "") {
    if (!isAddress(PACKAGE_INDEX_URL))
      throw new StartupError("PACKAGE_INDEX_URL has to begin with http:// or https://");
    sources.push(new IndexSource(PACKAGE_INDEX_URL, lock.python, remote, store));
  }
  return sources;
}

function isAddress(text: string): boolean {
  return /^https?:\/\//i.test(text) && URL.canParse(text);
}

function folderOf(setting: string): string {
  if (setting.startsWith("file:")) return fileURLToPath(setting);
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(setting))
    throw new StartupError("PYODIDE_INDEX_URL has to be a folder or begin with http:// or https://");
  return setting;
}

async function pyodideCdn(): Promise<string> {
  const file = fileURLToPath(import.meta.resolve("pyodide/package.json"));
  const { version } = JSON.parse(await readFile(file, "utf8")) as { version: string };
  return `https://cdn.jsdelivr.net/pyodide/v${version}/full/`;
}
