import { existsSync } from "node:fs";
import { cpuOf, perRequest, totalOf } from "./cpu.ts";
import { figure, type Section } from "./report.ts";
import { startServerProcess } from "./server-process.ts";
import { BENCH, OURS, oursWith } from "./settings.ts";
import { wrk } from "./wrk.ts";

const CONNECTIONS = 4;

interface Shape {
  readonly name: string;
  readonly code: string;
}

const SHAPES: readonly Shape[] = [
  { name: "result of 1 kB", code: '"x" * 1000' },
  { name: "result of 1 MB", code: '"x" * 1_000_000' },
  { name: "result of 10 MB", code: '"x" * 10_000_000' },
  { name: "list of 100,000 numbers", code: "list(range(100_000))" },
  { name: "1 MB printed in 10,000 lines", code: 'for i in range(10_000): print("x" * 99)' },
  { name: "20 files written", code: 'for i in range(20): open(f"file-{i}.txt", "w").write("x" * 1000)' },
  { name: "20 files read", code: '"".join(open(f"file-{i}.txt").read() for i in range(20))[:9]' },
];
const PACKAGES: readonly Shape[] = [
  { name: "numpy", code: "import numpy as np\nint(np.arange(10).sum())" },
  { name: "pandas", code: "import pandas as pd\nint(pd.Series(range(10)).sum())" },
  {
    name: "a simple plot",
    code: "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3], [1, 4, 9]); plt.title('squares'); plt.show()",
  },
];

/** What replies and programs of other sizes take. */
export async function measureResults(log: (line: string) => void, skipped: string[]): Promise<Section> {
  const folder = process.env.PYODIDE_EXPRESS_WHEELS ?? "";
  const withWheels = folder !== "" && existsSync(folder);
  if (!withWheels) skipped.push("numpy, pandas and plots: PYODIDE_EXPRESS_WHEELS names no folder of wheels");
  const rows = await measure(oursWith("results"), SHAPES);
  if (withWheels) {
    const wheels = { PYODIDE_PACKAGES: "numpy,pandas,matplotlib", PACKAGE_DIR: folder, PYODIDE_INDEX_URL: folder };
    rows.push(...(await measure(oursWith("packages", wheels), PACKAGES)));
  }
  for (const { name, values } of rows) log(`${name}: ${values.map(figure).join(" ")}`);
  return {
    id: "results",
    title: "Results, output, files, packages",
    note: `${CONNECTIONS} connections, ${BENCH.seconds} s each. Limit of a large result: it is copied out of the interpreter, through a pipe of 64 KiB, checked in one pass, and through a socket: some 1 GB/s each.`,
    tables: [
      {
        title: "pyodide-express",
        unit: "see columns",
        chart: "none",
        columns: ["requests/s", "p50, ms", "p99, ms", "processor time, ms"],
        rows,
      },
    ],
  };
}

async function measure(env: Record<string, string>, shapes: readonly Shape[]) {
  const server = await startServerProcess(OURS.args, env);
  try {
    const rows: { name: string; values: (number | null)[] }[] = [];
    for (const { name, code } of shapes) {
      const options = { url: server.url, connections: CONNECTIONS, body: { code } };
      await wrk({ ...options, seconds: 1, expects: '"success":true' });
      const before = cpuOf(server.pid);
      const result = await wrk({ ...options, seconds: BENCH.seconds });
      const cpu = totalOf(perRequest(before, cpuOf(server.pid), result.good));
      // A sandbox that was replaced has taken its figures with it; and of no answer there are none.
      const isKnown = result.good > 0;
      const values = [result.goodPerSecond, result.p50Ms, result.p99Ms].map((value) => (isKnown ? value : null));
      rows.push({ name, values: [...values, isKnown && cpu > 0 ? cpu : null] });
    }
    return rows;
  } finally {
    await server.stop();
  }
}
