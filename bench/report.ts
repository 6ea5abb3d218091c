/** What a part of the benchmark has measured: the report's JSON has these as they are, and its page draws them. */
export interface Section {
  readonly id: string;
  readonly title: string;
  /** How it was measured, and what bounds it: the physical limit beside the figures. */
  readonly note: string;
  readonly tables: readonly Table[];
}

export interface Table {
  readonly title: string;
  /** Of the values: `requests/s`, `ms`, `MiB`. */
  readonly unit: string;
  /** `bars`: one group for each column; `lines`: the columns are points on a scale; `none`: only the figures. */
  readonly chart: "bars" | "lines" | "none";
  readonly columns: readonly string[];
  /** A value for each column; null: not measured. */
  readonly rows: readonly { readonly name: string; readonly values: readonly (number | null)[] }[];
}

export interface Target {
  readonly name: string;
  readonly reached: string;
  readonly met: boolean;
}

export interface Report {
  /** ISO 8601. */
  readonly at: string;
  readonly machine: string;
  /** Before and after. */
  readonly loadAverage: readonly [number, number];
  readonly generator: string;
  readonly targets: readonly Target[];
  readonly sections: readonly Section[];
  /** What was not measured, and why. */
  readonly skipped: readonly string[];
}

export const figure = (value: number | null): string => {
  if (value === null) return "–";
  if (value !== 0 && Math.abs(value) < 1) return value.toFixed(3);
  return Math.abs(value) < 100 ? value.toFixed(1) : value.toFixed(0);
};

/** As Markdown. */
export const toTable = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");

/** As Markdown, for docs/benchmarks.md. */
export function toMarkdown({ at, machine, loadAverage, generator, targets, sections, skipped }: Report): string {
  const parts = sections.flatMap(({ title, note, tables }) => [
    `## ${title}`,
    note,
    ...tables.map(({ title, unit, columns, rows }) =>
      toTable(
        [`${title}, ${unit}`, ...columns],
        rows.map(({ name, values }) => [name, ...values.map(figure)]),
      ),
    ),
  ]);
  return `${[
    "# Benchmarks",
    `Written by \`npm run bench -- --write\`; do not edit. ${at.slice(0, 10)}, ${machine}. Load average before and after: ${loadAverage.map((load) => load.toFixed(1)).join(", ")}. Load by ${generator}; all in one run, rounds in turns, medians: only ratios within one run count.`,
    ...(skipped.length > 0 ? [`Not measured: ${skipped.join("; ")}.`] : []),
    "## Targets",
    toTable(
      ["target", "reached", ""],
      targets.map(({ name, reached, met }) => [name, reached, met ? "yes" : "**no**"]),
    ),
    ...parts,
  ].join("\n\n")}\n`;
}
