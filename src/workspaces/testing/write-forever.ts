/**
 * Changes one workspace until it is killed, and says each round that is durable: a line with its number.
 *
 * A round leaves `/home/pyodide/first` and `/tmp/last` with the round's content, one file named for the round, one upload.
 */
import { DiskWorkspaces } from "../disk-workspaces.ts";
import { contentOfRound } from "./rounds.ts";

const [directory = "", firstRound = "1"] = process.argv.slice(2);
const workspace = new DiskWorkspaces({ directory, maxBytes: 64 * 1024 * 1024, maxFiles: 100 }).of("crash");
for (let round = Number(firstRound); ; round++) {
  const content = contentOfRound(round);
  const file = (path: string) => ({ path, kind: "file" as const, size: content.length, mtimeMs: round });
  const empty = new Uint8Array();
  using execution = workspace.forExecution();
  await execution.apply(
    {
      written: [file("/home/pyodide/first"), { ...file(`/plots/round-${round}`), size: 0 }, file("/tmp/last")],
      deleted: [`/plots/round-${round - 1}`],
    },
    [content, empty, content],
  );
  process.stdout.write(`${round}\n`);
  await workspace.upload(content, { filename: "up.csv", originalName: "up.csv" });
}
