import { execFile, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { parse } from "yaml";
import { startTestServer } from "../support/server.ts";

/** What `deploy/monitoring` has for Prometheus and Grafana, against what a running server exposes and the handbook explains. */
const run = promisify(execFile);
const FOLDER = new URL("../../deploy/monitoring/", import.meta.url).pathname;
const PROMTOOL = process.env.PROMTOOL ?? "promtool";
const hasPromtool = spawnSync(PROMTOOL, ["--version"]).status === 0;

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly annotations: { readonly summary: string };
  readonly labels: { readonly severity: string };
}
const rules: readonly Rule[] = parse(readFileSync(`${FOLDER}alerts.yaml`, "utf8")).groups.flatMap(
  (group: { rules: readonly Rule[] }) => group.rules,
);
const dashboard = JSON.parse(readFileSync(`${FOLDER}dashboard.json`, "utf8"));
const handbook = readFileSync(new URL("../../docs/operations.md", import.meta.url), "utf8");

/** Metric → its labels and their values. */
const exposed = new Map<string, Map<string, Set<string>>>();
beforeAll(async () => {
  const server = await startTestServer();
  try {
    await server.post("/api/execute", { code: "1 + 1" });
    await server.post("/api/execute", { code: "while True: pass", timeout: 100 });
    await server.get("/nowhere");
    // Too large to be rewound: its sandbox is replaced.
    await server.post("/api/execute", { code: "len(bytearray(200 * 2**20))" });
    const metrics = async () => String((await server.get("/metrics")).body);
    await vi.waitUntil(async () => (await metrics()).includes("pyodide_discards_total{"), { timeout: 30_000 });
    const body = await metrics();
    for (const [, name = "", labels = ""] of body.matchAll(/^([a-z][a-z0-9_]*)(?:\{(.*)\})? \S+$/gm)) {
      const known = exposed.get(name) ?? new Map<string, Set<string>>();
      exposed.set(name, known);
      for (const [, label = "", value = ""] of labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g))
        known.set(label, (known.get(label) ?? new Set()).add(value));
    }
  } finally {
    await server.stop(0);
  }
});

/** Those that Prometheus itself has, or adds. */
const OF_PROMETHEUS: Readonly<Record<string, readonly string[]>> = { up: ["job"] };
const ADDED_LABELS = ["instance", "job", "le"];

function metricsOf(expression: string): { name: string; labels: readonly string[] }[] {
  const withoutGrouping = expression.replace(/\b(?:by|on|ignoring|without)\s*\([^)]*\)/g, " ");
  return Array.from(
    withoutGrouping.matchAll(/\b([a-z]\w*_\w+|up)\b(?!\s*\()(?:\{([^}]*)\})?/g),
    ([, name = "", selector = ""]) => ({
      name,
      labels: Array.from(selector.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g), ([, label = ""]) => label),
    }),
  ).filter(({ name }) => name !== "histogram_quantile");
}

const expressions: readonly (readonly [string, string])[] = [
  ...rules.map(({ alert, expr }) => [alert, expr] as const),
  ...dashboard.panels.flatMap(({ title, targets }: { title: string; targets: readonly { expr: string }[] }) =>
    targets.map(({ expr }) => [title, expr] as const),
  ),
];

test.each(expressions)("%s asks for metrics and labels that a server has: %s", (_, expression) => {
  const metrics = metricsOf(expression);
  expect(metrics.length).toBeGreaterThan(0);
  for (const { name, labels } of metrics) {
    const known = OF_PROMETHEUS[name] ?? (exposed.has(name) ? [...(exposed.get(name)?.keys() ?? [])] : null);
    expect(known, `${name} is not exposed`).not.toBeNull();
    for (const label of labels) expect([...(known ?? []), ...ADDED_LABELS]).toContain(label);
  }
});

test("states and statuses that rules name are those that servers write", () => {
  expect([...(exposed.get("pyodide_sandboxes")?.get("state") ?? [])]).toContain("failed");
  expect([...(exposed.get("http_requests_total")?.get("status") ?? [])]).toEqual(
    expect.arrayContaining(["200", "404"]),
  );
  expect([...(exposed.get("pyodide_ready") ?? [])]).toEqual([]);
});

test("the dashboard is one that Grafana can import, and shows every metric of the server's own", () => {
  expect(dashboard).toMatchObject({ schemaVersion: expect.any(Number), panels: expect.any(Array) });
  const ids = dashboard.panels.map(({ id }: { id: number }) => id);
  expect(new Set(ids).size).toBe(ids.length);
  const shown = new Set(
    expressions.flatMap(([, expression]) => metricsOf(expression).map(({ name }) => name.replace(/_bucket$/, ""))),
  );
  const own = [...exposed.keys()]
    .filter((name) => name.startsWith("pyodide_"))
    .map((name) => name.replace(/_(bucket|sum|count)$/, ""));
  expect([...new Set(own)].filter((name) => !shown.has(name))).toEqual([]);
});

describe("the handbook", () => {
  const section = handbook.split(/^## /m).find((part) => part.startsWith("Alerts\n")) ?? "";
  test.each(rules.map(({ alert }) => alert))("says what %s means and what to do", (alert) => {
    const text = section.split(/^### /m).find((part) => part.startsWith(`${alert}\n`));
    expect(text?.length ?? 0).toBeGreaterThan(alert.length + 80);
  });

  test("explains no alert that there is not", () => {
    const explained = Array.from(section.matchAll(/^### (\w+)$/gm), ([, name]) => name);
    expect(explained).toEqual(rules.map(({ alert }) => alert));
  });
});

describe.skipIf(!hasPromtool)("promtool (Debian's package prometheus has it; PROMTOOL names another)", () => {
  test("checks the rules", async () => {
    const { stdout } = await run(PROMTOOL, ["check", "rules", `${FOLDER}alerts.yaml`]);
    expect(stdout).toContain(`SUCCESS: ${rules.length} rules found`);
  });

  test("has them fire when they should, and not when they should not", async () => {
    const { stdout } = await run(PROMTOOL, ["test", "rules", `${FOLDER}alerts.test.yaml`]);
    expect(stdout).toContain("SUCCESS");
  });

  test("checks the server's metrics", async () => {
    const server = await startTestServer();
    try {
      const { body } = await server.get("/metrics");
      const { status, stdout } = spawnSync(PROMTOOL, ["check", "metrics"], { input: body, encoding: "utf8" });
      // Node's own metrics have names that it would write otherwise.
      const ours = stdout.split("\n").filter((line) => line.startsWith("pyodide_") || line.startsWith("http_"));
      expect({ ours, isRead: status === 0 || status === 3 }).toEqual({ ours: [], isRead: true });
    } finally {
      await server.stop(0);
    }
  });
});
