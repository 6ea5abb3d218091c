/**
 * What imports cost that no image holds: with our archives' bytecode, and with the peer, which is Pyodide's own: sources in its zip, and
 * packages without bytecode. The same sandboxes otherwise, each import on a rewound one, rounds in turns.
 *
 *     npm run bench:imports [FOLDER]
 *
 * FOLDER: where images are kept; default: a temporary one. With PYODIDE_EXPRESS_WHEELS, a folder of wheels, python-docx and openpyxl too.
 */
import { mkdtemp, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { bootOptions, openHost } from "../src/compose/host.ts";
import { ImageCache, PRELOADED_MODULES } from "../src/environments/images.ts";
import { BytecodeCompiler } from "../src/packages/bytecode-compiler.ts";
import { BytecodeStore } from "../src/packages/bytecode-store.ts";
import { HttpFetcher } from "../src/packages/fetcher.ts";
import { PackageSetBuilder } from "../src/packages/package-set.ts";
import { parseRequirement } from "../src/packages/pep/requirements.ts";
import { resolve } from "../src/packages/resolver.ts";
import { loadPyodideLock } from "../src/packages/sources/pyodide-lock.ts";
import { createPackageSources } from "../src/packages/sources/sources.ts";
import { WheelStore } from "../src/packages/wheel-store.ts";
import { buildImage } from "../src/sandbox/build-image.ts";
import { internalJob } from "../src/sandbox/running-job.ts";
import { Sandbox } from "../src/sandbox/sandbox.ts";
import { loadConfig } from "../src/shared/settings.ts";
import type { GuestEnvironment } from "../src/wire/messages.ts";
import { median } from "./settings.ts";

const ROUNDS = 7;
const IMPORTS = [
  "doctest, tarfile, pdb",
  "sqlite3, http.server, xmlrpc.client",
  "email.mime.text, imaplib, configparser",
];
const PACKAGE_IMPORTS = ["docx", "openpyxl"];
const PACKAGES = ["python-docx", "openpyxl"];

const { positionals } = parseArgs({ allowPositionals: true });
const folder = positionals[0] ?? (await mkdtemp(path.join(os.tmpdir(), "bench-imports-")));
const wheels = process.env.PYODIDE_EXPRESS_WHEELS ?? "";
const config = loadConfig({ CACHE_DIR: folder, DATA_DIR: path.join(folder, "data") });
const host = await openHost(config);
const onProgress = (message: string) => console.log(message);
const images = new ImageCache({ cacheDir: folder, host, onProgress });
const base = await images.base();
const withMemory = { ...host, memoryMb: Math.max(host.memoryMb, 1024), startTimeoutMs: 300_000 };

/** As an image was made before archives had bytecode. */
async function peerImage(
  name: string,
  baseImagePath: string | null,
  environment: GuestEnvironment | null,
): Promise<string> {
  const file = path.join(folder, `peer-${name}.bin`);
  const guest = { ...bootOptions(config, { baseImagePath, stdlibPath: null, guest: environment }), mapMemory: false };
  const { image } = await buildImage({ ...withMemory, guest: { ...guest, preload: PRELOADED_MODULES } });
  await writeFile(file, image);
  return file;
}

async function packages(withBytecode: boolean) {
  const lock = await loadPyodideLock();
  const remote = new HttpFetcher();
  const store = new WheelStore(path.join(folder, "data", "packages"), remote);
  const settings = { PACKAGE_DIR: wheels, PYODIDE_INDEX_URL: path.join(folder, "data"), PACKAGE_INDEX_URL: "" };
  const sources = await createPackageSources(settings, { lock, remote, store });
  const { packages: resolved } = await resolve(PACKAGES.map(parseRequirement), { sources, python: lock.python });
  const compiler = new BytecodeCompiler(() => images.compiler());
  const bytecode = withBytecode ? new BytecodeStore(folder, compiler, () => images.compilerKey()) : null;
  const set = await new PackageSetBuilder(path.join(folder, "archives"), { store, lock, bytecode }).build(resolved);
  await compiler.close();
  await remote.close();
  return {
    archivePath: set.archive.path,
    libraries: set.sharedLibraries,
    imports: [],
    aliases: {},
    sha256: set.archive.sha256,
    bytes: set.archive.bytes,
  };
}

const peerBase = await peerImage("stdlib", null, null);
const peers: {
  readonly name: string;
  readonly imports: readonly string[];
  readonly ours: Sandbox;
  readonly peer: Sandbox;
}[] = [];
const start = async (baseImagePath: string, stdlibPath: string | null, guest: GuestEnvironment | null) =>
  await Sandbox.start({ ...host, guest: bootOptions(config, { baseImagePath, stdlibPath, guest }) });
peers.push({
  name: "stdlib",
  imports: IMPORTS,
  ours: await start(base.path, base.stdlibPath, null),
  peer: await start(peerBase, null, null),
});
if (wheels !== "") {
  const { sha256, bytes, ...unbuilt } = await packages(true);
  const image = await images.environment("bench", sha256, unbuilt);
  const { sha256: _, bytes: peerBytes, ...plain } = await packages(false);
  const peerPath = await peerImage("bench", peerBase, { ...plain, imagePath: null });
  console.log(`archive: ${bytes} bytes, without bytecode ${peerBytes}`);
  peers.push({
    name: "packages",
    imports: PACKAGE_IMPORTS,
    ours: await start(base.path, base.stdlibPath, { ...unbuilt, imagePath: image.path }),
    peer: await start(peerBase, null, { ...plain, imagePath: peerPath }),
  });
}

async function importMs(sandbox: Sandbox, modules: string): Promise<number> {
  const { result } = await sandbox.execute(internalJob(`import ${modules}`, 60_000));
  if (!result.success) throw new Error(`import ${modules}: ${result.error}`);
  await sandbox.idle;
  return result.executionTimeMs;
}

console.log(`${"import".padEnd(44)} ${"ours, ms".padStart(9)} ${"peer, ms".padStart(9)}  ours ÷ peer`);
for (const { imports, ours, peer } of peers) {
  for (const modules of imports) {
    const times = { ours: [] as number[], peer: [] as number[] };
    for (let round = 0; round < ROUNDS; round++) {
      times.ours.push(await importMs(ours, modules));
      times.peer.push(await importMs(peer, modules));
    }
    const [a, b] = [median(times.ours), median(times.peer)];
    console.log(`${modules.padEnd(44)} ${a.toFixed(1).padStart(9)} ${b.toFixed(1).padStart(9)}  ${(a / b).toFixed(3)}`);
  }
  ours.kill("measured");
  peer.kill("measured");
}
