import type { Section, Target } from "./report.ts";
import type { Soak } from "./soak.ts";

const MAX_DRIFT = 0.05;

/** Which targets these sections tell of, and whether they are reached. */
export function targetsOf(sections: readonly Section[], soak: Soak | null): Target[] {
  const targets: Target[] = [];
  const least = (name: string, value: number | null, limit: number, unit = "×") => {
    if (value !== null && Number.isFinite(value))
      targets.push({ name: `${name} ≥ ${limit} ${unit}`, reached: `${value.toFixed(2)} ${unit}`, met: value >= limit });
  };
  const most = (name: string, value: number | null, limit: number, unit: string) => {
    if (value !== null && Number.isFinite(value))
      targets.push({ name: `${name} ≤ ${limit} ${unit}`, reached: `${value.toFixed(2)} ${unit}`, met: value <= limit });
  };
  const value = (section: string, table: string, row: string, column: string): number | null => {
    const found = sections.find(({ id }) => id === section)?.tables.find(({ title }) => title.startsWith(table));
    const at = found?.columns.findIndex((name) => name.startsWith(column)) ?? -1;
    return found?.rows.find(({ name }) => name.startsWith(row))?.values[at] ?? null;
  };
  const ratio = (a: number | null, b: number | null) => (a === null || b === null ? null : a / b);
  const rate = (program: string, row: string, connections: string) =>
    value("throughput", `${program}: throughput`, row, connections);
  const against = (program: string, row: string, connections: string) =>
    ratio(rate(program, "pyodide-express", connections), rate(program, row, connections));
  const shared = "Express + Pyodide, shared";
  const one = "`1+1`";
  least("`1+1`, 16 connections, by shared globals", against(one, shared, "16 "), 0.6);
  least("`1+1`, 16 connections, by a python3 process", against(one, "Express + python3", "16 "), 12);
  least("`1+1`, 1 connection, by shared globals", against(one, shared, "1 "), 0.8);
  least("30 lines, 16 connections, by shared globals", against("30 lines", shared, "16 "), 1.2);
  most(
    "processor time of a request, `1+1`, 16 connections",
    value("throughput", `${one}: processor`, "pyodide-express", "16 "),
    1.3,
    "ms",
  );
  const started = (row: string) => value("start", "Start", row, "ms");
  most("our server listens", started("our server listens"), 600, "ms");
  most(
    "first start ever, by one plain loadPyodide()",
    ratio(started("our server can run all, first"), started("loadPyodide")),
    2,
    "×",
  );
  least("sandbox start, by loadPyodide()", ratio(started("loadPyodide"), started("our sandbox")), 5);
  const session = (name: string) => value("sessions", "Execution in a session", name, "× stateless");
  most("session with commit on disk, p50 by stateless", session("session `x = i`, commit, on disk"), 1.5, "×");
  most("session with commit in Redis, p50 by stateless", session("session `x = i`, commit, in Redis"), 2, "×");
  const stored = sections.find(({ id }) => id === "sessions")?.tables[1]?.columns.at(-1) ?? "";
  most(`wake from disk among ${stored} sessions`, value("sessions", "Wake", "median", stored), 6, "ms");
  for (const load of ["2 ×", "25 ×"]) {
    least(`overload of ${load}, throughput by the peak`, value("overload", "Answered", load, "of the peak"), 0.9);
    most(`overload of ${load}, refusals, p50`, value("overload", "Answered", load, "refusal p50"), 10, "ms");
  }
  const plot = value("results", "pyodide-express", "a simple plot", "p50");
  most("a simple plot, p50 at 4 connections on 2 sandboxes", plot, 340, "ms");
  if (soak !== null) {
    const percent = `${soak.drift >= 0 ? "+" : "−"}${(Math.abs(soak.drift) * 100).toFixed(1)} %`;
    const name = `memory within 5 % over ${soak.executions} executions`;
    targets.push({ name, reached: percent, met: Math.abs(soak.drift) <= MAX_DRIFT });
  }
  return targets;
}
