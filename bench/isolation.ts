/** What the operating system's layers add to a sandbox's start: `node bench/isolation.ts [starts]`. */
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { detectIsolation, wrapCommand } from "../src/isolation/detect.ts";
import { spawnWrapped } from "../src/isolation/wrap.ts";
import { denoBinary } from "../src/shared/deno-binary.ts";

const starts = Number(process.argv[2] ?? 20);
const script = fileURLToPath(new URL("isolation-hello.js", import.meta.url));
const flags = "run --no-remote --no-npm --cached-only --no-config --no-lock --no-prompt".split(" ");
const settings = { SANDBOX_MAX_AGE_MS: 3_600_000 };

const reports = {
  "without a wrapper": await detectIsolation({ ...settings, ISOLATION: "deno" }),
  bubblewrap: await detectIsolation(
    { ...settings, ISOLATION: "auto" },
    { consider: (plan) => plan.tool === "bubblewrap" },
  ),
  unshare: await detectIsolation({ ...settings, ISOLATION: "auto" }, { consider: (plan) => plan.tool === "unshare" }),
  setpriv: await detectIsolation({ ...settings, ISOLATION: "auto" }, { consider: (plan) => plan.tool === "setpriv" }),
};
const timesMs: Record<string, number[]> = {};
for (let start = 0; start < starts; start++) {
  // In turn, so that a slow moment of the machine meets all of them.
  for (const [name, report] of Object.entries(reports)) {
    const wrapped = wrapCommand(report, {
      command: denoBinary(),
      args: [...flags, script],
      readOnlyPaths: [script],
      env: {},
      memoryBytes: 512 * 1024 * 1024,
    });
    const began = performance.now();
    const child = spawnWrapped(wrapped);
    const [line] = await once(child.stdout, "data");
    if (String(line).trim() !== "42") throw new Error(`${name} answered ${line}`);
    timesMs[name] ??= [];
    timesMs[name].push(performance.now() - began);
    child.kill("SIGKILL");
    await once(child, "exit");
  }
}
const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
const base = median(timesMs["without a wrapper"] ?? []);
console.table(
  Object.entries(timesMs).map(([name, values]) => ({
    name,
    "median, ms": median(values).toFixed(1),
    "added, ms": (median(values) - base).toFixed(1),
  })),
);
