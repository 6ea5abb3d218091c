import { figure, type Report, type Table } from "./report.ts";

const WIDTH = 860;
const COLOURS = ["#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b7791f", "#97266d", "#285e61", "#4a5568"];

/** The report as one page: no script, no network, charts as SVG. */
export function toPage({ at, machine, loadAverage, generator, targets, sections, skipped }: Report): string {
  const row = (cells: readonly string[], tag = "td") =>
    `<tr>${cells.map((cell) => `<${tag}>${cell}</${tag}>`).join("")}</tr>`;
  const figures = ({ columns, rows }: Table) =>
    `<table>${row(["", ...columns.map(escaped)], "th")}${rows.map(({ name, values }) => row([escaped(name), ...values.map(figure)])).join("")}</table>`;
  const body = sections
    .map(
      ({ id, title, note, tables }) =>
        `<section id="${id}"><h2>${escaped(title)}</h2><p>${escaped(note)}</p>${tables
          .map((table) => `<h3>${escaped(table.title)}, ${escaped(table.unit)}</h3>${chart(table)}${figures(table)}`)
          .join("")}</section>`,
    )
    .join("\n");
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>pyodide-express: benchmarks</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:${WIDTH}px;margin:2rem auto;padding:0 1rem;color:#1a202c}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{border:1px solid #cbd5e0;padding:.2rem .6rem;text-align:right}
td:first-child,th:first-child{text-align:left}.yes{color:#276749}.no{color:#c53030;font-weight:bold}svg{max-width:100%;height:auto}
</style>
<h1>Benchmarks</h1>
<p>${escaped(at)}, ${escaped(machine)}. Load average before and after: ${loadAverage.map((load) => load.toFixed(1)).join(", ")}. Load by ${escaped(generator)}. All servers in one run, in turns: only ratios within it count.</p>
${skipped.length > 0 ? `<p>Not measured: ${escaped(skipped.join("; "))}.</p>` : ""}
<h2>Targets</h2>
<table>${row(["target", "reached", ""], "th")}${targets.map(({ name, reached, met }) => row([escaped(name), escaped(reached), `<span class="${met ? "yes" : "no"}">${met ? "yes" : "no"}</span>`])).join("")}</table>
${body}
</html>
`;
}

function chart(table: Table): string {
  if (table.chart === "none" || table.columns.length === 0) return "";
  return table.chart === "bars" ? bars(table) : lines(table);
}

/** Horizontal bars: a group for each column, each on its own scale, so that 1 and 64 connections can stand together. */
function bars({ columns, rows }: Table): string {
  const height = 18;
  let y = 0;
  let shapes = "";
  for (const [at, column] of columns.entries()) {
    const most = Math.max(...rows.map(({ values }) => values[at] ?? 0), Number.MIN_VALUE);
    y += height + 6;
    shapes += text(0, y - 6, column, "font-weight='bold'");
    for (const [index, { name, values }] of rows.entries()) {
      const value = values[at] ?? null;
      if (value === null) continue;
      const length = (value / most) * (WIDTH - 480);
      shapes += text(0, y + 13, name);
      shapes += `<rect x="390" y="${y}" width="${length.toFixed(1)}" height="${height - 4}" fill="${COLOURS[index % COLOURS.length]}"/>`;
      shapes += text(396 + length, y + 12, figure(value));
      y += height;
    }
  }
  return svg(y + 4, shapes);
}

function lines({ columns, rows }: Table): string {
  const height = 220;
  const all = rows.flatMap(({ values }) => values.filter((value) => value !== null));
  const most = Math.max(...all, Number.MIN_VALUE) * 1.05;
  const x = (at: number) => 60 + (at / Math.max(1, columns.length - 1)) * (WIDTH - 80);
  const y = (value: number) => height - 20 - (value / most) * (height - 40);
  let shapes = [0, 0.5, 1]
    .map(
      (share) =>
        `<line x1="60" x2="${WIDTH - 20}" y1="${y(most * share)}" y2="${y(most * share)}" stroke="#e2e8f0"/>${text(0, y(most * share) + 4, figure(most * share))}`,
    )
    .join("");
  for (const [index, { name, values }] of rows.entries()) {
    const colour = COLOURS[index % COLOURS.length];
    const points = values.flatMap((value, at) =>
      value === null ? [] : [`${x(at).toFixed(1)},${y(value).toFixed(1)}`],
    );
    shapes += `<polyline points="${points.join(" ")}" fill="none" stroke="${colour}" stroke-width="2"/>`;
    shapes += text(70 + index * 190, 12, name, `fill='${colour}'`);
  }
  shapes += text(60, height - 4, columns[0] ?? "") + text(WIDTH - 90, height - 4, columns.at(-1) ?? "");
  return svg(height, shapes);
}

const svg = (height: number, shapes: string) =>
  `<svg viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-size="12" role="img">${shapes}</svg>`;

const text = (x: number, y: number, content: string, attributes = "") =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${escaped(content)}</text>`;

const escaped = (content: string): string =>
  content.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
