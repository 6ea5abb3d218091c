/**
 * A stand-in for the server around one sandbox with an intruder in it and one without. `mutant.ts` copies it beside the
 * `src` it is to run, hence its imports.
 *
 * Argument: JSON, a {@link Visit}. Prints one line of JSON, an {@link Outcome}.
 */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
// @ts-expect-error
import { bootOptions, openHost } from "./src/compose/host.ts";
// @ts-expect-error
import { ImageCache } from "./src/environments/images.ts";
// @ts-expect-error
import { innermostProcess } from "./src/isolation/process-facts.ts";
// @ts-expect-error
import { internalJob } from "./src/sandbox/running-job.ts";
// @ts-expect-error
import { Sandbox } from "./src/sandbox/sandbox.ts";
// @ts-expect-error: beside a copy of the source.
import { loadConfig } from "./src/shared/settings.ts";
// @ts-expect-error
import { PROTOCOL_VERSION } from "./src/wire/frames.ts";

export interface Visit {
  readonly suite: "reaching" | "lookingAround" | "fromStrings" | "changing" | "forge";
  readonly isolation: "auto" | "deno";
  readonly cacheDir: string;
  readonly secretFile: string;
  readonly marker: string;
  readonly port: number;
  readonly won: string;
}

export interface Outcome {
  /** true: succeeded; else why not. Empty: the intruder said nothing. */
  readonly attacks: Readonly<Record<string, true | string>>;
  /** What the execution came to in which the intruder was. */
  readonly result: unknown;
  readonly ended: string;
  /** What the host saw. */
  readonly signals: number;
  readonly wrote: boolean;
  /** The other sandbox still answers, and answers right. */
  readonly peerIsWell: boolean;
  readonly tool: string;
}

let signals = 0;
process.on("SIGUSR2", () => {
  signals++;
});
const visit: Visit = JSON.parse(process.argv[2] ?? "");
const config = loadConfig({ ISOLATION: visit.isolation, CACHE_DIR: visit.cacheDir, LOG_LEVEL: "silent" });
mkdirSync(config.CACHE_DIR, { recursive: true });
const host = await openHost(config);
const base = await new ImageCache({ cacheDir: config.CACHE_DIR, host, onProgress: () => {} }).base();
const guest = bootOptions(config, { baseImagePath: base.path, stdlibPath: base.stdlibPath, guest: null });
const [sandbox, peer] = await Promise.all([Sandbox.start({ ...host, guest }), Sandbox.start({ ...host, guest })]);
const moduleFile = path.join(path.dirname(visit.marker), "module.js");
writeFileSync(moduleFile, "export default 1");
const facts = {
  ...visit,
  moduleFile,
  visible: fileURLToPath(new URL("./src/guest/io/shared-state.ts", import.meta.url)),
  protocolVersion: PROTOCOL_VERSION,
  serverPid: process.pid,
  peerPid: await innermostProcess(peer.pid),
};
const { result } = await sandbox.execute(internalJob(JSON.stringify(facts), 30_000));
sandbox.kill("the visit is over");
const ended = await sandbox.ended;
// Node notices a signal some time after the kernel has delivered it.
await new Promise((resolve) => setTimeout(resolve, 20));
// The peer's own intruder would answer a job; that it lives is what it can say without.
const peerIsWell = peer.endReason === null && (await peer.rewind()).state === "pristine";
peer.kill("the visit is over");
await peer.ended;
const attacks = ended.startsWith("INTRUDER") ? JSON.parse(ended.slice("INTRUDER".length)) : {};
const said: Outcome = {
  attacks,
  result: result.result.parseAll(),
  ended: ended.slice(0, 300),
  signals,
  wrote: existsSync(visit.marker),
  peerIsWell,
  tool: host.isolation.tool,
};
console.log(JSON.stringify(said));
process.exit(0);
