import { Archive } from "../../wire/archive-format.ts";
import { ReadableFile } from "./readable-file.ts";

/** Opens a package archive. It stays open: reading from it needs no permission later. */
export function openArchive(path: string): Archive {
  const file = new ReadableFile(path);
  return new Archive((offset, length) => file.read(offset, length), file.bytes);
}

/**
 * Compiles an environment's shared libraries, each on whatever core is free, while the interpreter itself is being read.
 *
 * @returns path in the archive → module. Those that cannot be compiled are missing.
 */
export async function compileLibraries(
  archive: Archive,
  libraries: readonly string[],
): Promise<Record<string, WebAssembly.Module>> {
  const entries = new Map(archive.entries.map((entry) => [entry.path, entry]));
  const compiled: Record<string, WebAssembly.Module> = {};
  const compile = async (library: string) => {
    const entry = entries.get(library);
    // The loader says what is wrong with it.
    const module =
      entry && (await WebAssembly.compile(archive.read(entry) as Uint8Array<ArrayBuffer>).catch(() => null));
    if (module) compiled[library] = module;
  };
  await Promise.all(libraries.map(compile));
  return compiled;
}
