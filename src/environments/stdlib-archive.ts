import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { type ArchivePart, buildArchive } from "../packages/archive.ts";
import { type BytecodeCompiler, bytecodePart, COMPILE_SCRIPT } from "../packages/bytecode-compiler.ts";
import type { ArchiveNote, KeptArchives } from "../packages/kept-archives.ts";
import { SafeZip } from "../packages/safe-zip.ts";
import { PYODIDE_DIR } from "../sandbox/launch.ts";

const FORMAT = 1;
const ZIP = "python_stdlib.zip";

/** The standard library, unpacked and with its bytecode, as an archive. */
export interface StdlibArchive {
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
  /** All that has to stay on disk for as long as it is used. */
  readonly files: readonly string[];
}

/** Names the compiler that is in Pyodide, the sources of its standard library, and what is asked of it. */
export async function compilerKey(): Promise<string> {
  const hash = createHash("sha256").update(`${FORMAT}\0${COMPILE_SCRIPT}\0`);
  for (const name of ["package.json", "pyodide.asm.wasm", ZIP])
    hash.update(await readFile(path.join(PYODIDE_DIR, name)));
  return hash.digest("hex");
}

/** @returns null if it was not built yet, or is damaged. */
export async function findStdlibArchive(archives: KeptArchives, key: string): Promise<StdlibArchive | null> {
  const note = await archives.find<ArchiveNote>(key, FORMAT);
  return note && describe(archives, key, note.archive);
}

/** @param compiler its sandboxes have the standard library as Pyodide ships it. */
export async function buildStdlibArchive(
  archives: KeptArchives,
  key: string,
  pythonVersion: string,
  compiler: BytecodeCompiler,
): Promise<StdlibArchive> {
  const zip = await SafeZip.open(path.join(PYODIDE_DIR, ZIP), ZIP);
  try {
    const part: ArchivePart = {
      filename: ZIP,
      files: zip.files.map(({ path: name, size }) => ({ path: name, zipPath: name, size, hash: null })),
      read: async (file) => await zip.read(file.zipPath),
    };
    // The zip's own place: a folder is mounted there instead.
    const folder = `/lib/python${pythonVersion.split(".").slice(0, 2).join("")}.zip`;
    const bytecode = bytecodePart(ZIP, await compiler.compile(part, folder));
    const { sha256, bytes } = await buildArchive([{ ...part, bytecode }], archives.folder);
    await archives.remember(key, { format: FORMAT, archive: { sha256, bytes } });
    return describe(archives, key, { sha256, bytes });
  } finally {
    zip.close();
  }
}

function describe(archives: KeptArchives, key: string, { sha256, bytes }: ArchiveNote["archive"]): StdlibArchive {
  const file = archives.pathOf(sha256);
  return { path: file, sha256, bytes, files: [file, archives.notePathOf(key)] };
}
