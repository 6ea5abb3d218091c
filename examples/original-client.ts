/**
 * What a client of the original server does, by the original's endpoints only:
 *
 *     node examples/original-client.ts [URL] [PACKAGE]
 *
 * URL: of a running server, default http://127.0.0.1:3000. PACKAGE: one in Python alone that the server can get, default
 * `humanize`. Clears the caller's files and statistics, before and after. Prints each step, ends with 1 at the first that fails.
 */
import { parseArgs } from "node:util";

const { positionals } = parseArgs({ allowPositionals: true });
const [url = "http://127.0.0.1:3000", packageName = "humanize"] = positionals;

const SALES = `city,month,revenue
Köln,2026-01,1200.50
Köln,2026-02,1310.00
Bonn,2026-01,640.25
Bonn,2026-02,702.75
`;

const REPORT = `
import csv
from collections import defaultdict

revenue = defaultdict(float)
with open("uploaded_file.csv", encoding="utf-8") as file:
    for row in csv.DictReader(file):
        revenue[row["city"]] += float(row["revenue"])

bars = "".join(
    f'<rect x="0" y="{20 * i}" width="{amount / 10}" height="16"/><text x="4" y="{20 * i + 12}">{city}</text>'
    for i, (city, amount) in enumerate(revenue.items())
)
with open("/plots/matplotlib/revenue.svg", "w", encoding="utf-8") as file:
    file.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="300" height="{20 * len(revenue)}">{bars}</svg>')
print(f"{len(revenue)} cities")
dict(revenue)
`;

interface Reply {
  readonly success: boolean;
  readonly error?: string | null;
  readonly [field: string]: unknown;
}

async function request(method: string, path: string, body?: object): Promise<Reply> {
  const isForm = body instanceof FormData;
  const response = await fetch(url + path, {
    method,
    ...(body && { body: isForm ? body : JSON.stringify(body) }),
    ...(body && !isForm && { headers: { "content-type": "application/json" } }),
  });
  return (await response.json()) as Reply;
}

/** Prints what a step came to. @throws if the server says that it failed, or `expected` is not so. */
function step(name: string, reply: Reply, outcome: unknown, expected: boolean): void {
  if (reply.success === false || !expected) throw new Error(`${name}: ${JSON.stringify(reply)}`);
  console.log(`${name}: ${typeof outcome === "string" ? outcome : JSON.stringify(outcome)}`);
}

async function main(): Promise<void> {
  const health = await request("GET", "/api/health");
  step("health", health, health.message, health.status === "healthy");
  await request("POST", "/api/clear-all-files");
  await request("POST", "/api/dashboard/stats/clear");

  const form = new FormData();
  form.append("csvFile", new Blob([SALES], { type: "text/csv" }), "sales 2026.csv");
  const upload = await request("POST", "/api/upload", form);
  const analysis = upload.analysis as { shape: number[]; columns: string[] };
  step("upload", upload, analysis.shape, analysis.columns.join() === "city,month,revenue");

  const run = await request("POST", "/api/execute", { code: REPORT });
  step("execute", run, run.result, run.stdout === "2 cities\n");

  const files = (await request("GET", "/api/pyodide-files")) as Reply & { result: { files: { name: string }[] } };
  const names = files.result.files.map(({ name }) => name);
  step("files", files, names, names.includes("sales_2026.csv"));
  const uploaded = (await request("GET", "/api/uploaded-files")) as Reply & { files: { filename: string }[] };
  step(
    "uploaded files",
    uploaded,
    uploaded.files.map(({ filename }) => filename),
    uploaded.count === 1,
  );
  const info = await request("GET", "/api/file-info/sales_2026.csv");
  step("file info", info, info.filename, (info.pyodideFile as { exists: boolean }).exists);
  const plots = await request("POST", "/api/extract-plots");
  step("plots", plots, plots.extracted_files, plots.count === 1);

  const install = await request("POST", "/api/install-package", { package: packageName });
  step("install", install, install.message, install.success);
  const code = `import importlib.metadata as m; "${packageName}" in {d.metadata["Name"] for d in m.distributions()}`;
  const use = await request("POST", "/api/execute", { code });
  step("use", use, use.result, use.result === true);
  const failing = await request("POST", "/api/execute", { code: "1 / 0" });
  step("error", { ...failing, success: true }, failing.error, failing.error === "division by zero");

  const { stats } = (await request("GET", "/api/dashboard/stats")) as Reply & {
    stats: { overview: { totalExecutions: number; successRate: string }; recent: object };
  };
  const { totalExecutions, successRate } = stats.overview;
  step("statistics", { success: true, stats }, { totalExecutions, successRate }, totalExecutions === 3);

  const removed = await request("DELETE", "/api/uploaded-files/sales_2026.csv");
  step("delete", removed, removed.message, removed.success);
  const cleared = await request("POST", "/api/clear-all-files");
  step("clear", cleared, cleared.cleared, cleared.success);
  const clearedStatistics = await request("POST", "/api/dashboard/stats/clear");
  step("clear statistics", clearedStatistics, clearedStatistics.message, clearedStatistics.success);
  const reset = await request("POST", "/api/reset");
  step("reset", reset, reset.message, reset.success);
  const after = await request("POST", "/api/execute", { code: `${code}, __import__("os").listdir(".")` });
  step("after", after, after.result, JSON.stringify(after.result) === "[false,[]]");
}

try {
  await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
