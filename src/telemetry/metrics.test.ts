import { expect, test } from "vitest";
import { Metrics } from "./metrics.ts";

const sources = {
  queueDepth: () => 0,
  sandboxes: () => ({ idle: 0 }),
  securityLogHealthy: () => true,
  ready: () => true,
  degraded: () => false,
};

/** Samples without comments, as `name{labels} value`. */
async function samples(metrics: Metrics, name: string): Promise<string[]> {
  return (await metrics.text()).split("\n").filter((line) => line.startsWith(name) && !line.startsWith("#"));
}

test("executions count by outcome and environment, with their time in seconds", async () => {
  const metrics = new Metrics(sources);
  metrics.recordExecution("success", "stdlib", 4);
  metrics.recordExecution("success", "stdlib", 6);
  metrics.recordExecution("timeout", "default", 30_000);
  metrics.recordExecution("rejected", "default");
  expect(await samples(metrics, "pyodide_executions_total")).toEqual([
    'pyodide_executions_total{outcome="success",environment="stdlib"} 2',
    'pyodide_executions_total{outcome="timeout",environment="default"} 1',
    'pyodide_executions_total{outcome="rejected",environment="default"} 1',
  ]);
  expect(await samples(metrics, "pyodide_execution_duration_seconds_sum")).toEqual([
    'pyodide_execution_duration_seconds_sum{outcome="success",environment="stdlib"} 0.01',
    'pyodide_execution_duration_seconds_sum{outcome="timeout",environment="default"} 30',
  ]);
  const [fast] = await samples(metrics, 'pyodide_execution_duration_seconds_bucket{le="0.005",outcome="success"');
  expect(fast).toMatch(/ 1$/);
});

test("gauges are asked when they are read", async () => {
  let queueDepth = 0;
  let healthy = true;
  const metrics = new Metrics({
    queueDepth: () => queueDepth,
    sandboxes: () => ({ idle: 3, busy: queueDepth }),
    securityLogHealthy: () => healthy,
    ready: () => healthy,
    degraded: () => !healthy,
  });
  expect(await samples(metrics, "pyodide_queue_depth")).toEqual(["pyodide_queue_depth 0"]);
  queueDepth = 7;
  healthy = false;
  expect(await samples(metrics, "pyodide_queue_depth")).toEqual(["pyodide_queue_depth 7"]);
  expect(await samples(metrics, "pyodide_sandboxes")).toEqual([
    'pyodide_sandboxes{state="idle"} 3',
    'pyodide_sandboxes{state="busy"} 7',
  ]);
  expect(await samples(metrics, "pyodide_security_log_healthy")).toEqual(["pyodide_security_log_healthy 0"]);
});

test("rewinds, and discards by reason, whatever numbers the reason holds", async () => {
  const metrics = new Metrics(sources);
  metrics.recordRewind();
  metrics.recordDiscard("heap of 163.5 MiB over the limit");
  metrics.recordDiscard("heap of 170 MiB over the limit");
  expect(await samples(metrics, "pyodide_rewinds_total")).toEqual(["pyodide_rewinds_total 1"]);
  expect(await samples(metrics, "pyodide_discards_total")).toEqual([
    'pyodide_discards_total{reason="heap of N MiB over the limit"} 2',
  ]);
});

test("a client cannot make time series without end", async () => {
  const metrics = new Metrics(sources);
  metrics.recordRequest("GET", "/api/status", 200);
  for (let i = 0; i < 1000; i++) {
    metrics.recordRequest(`METHOD${i}`, undefined, 404);
    metrics.recordRequest("GET", `/made/up/${i}`, 404);
    metrics.recordExecution("error", `environment-${i}`, 1);
    metrics.recordDiscard(`reason ${String.fromCodePoint(0x4e00 + i)}`);
  }
  expect((await samples(metrics, "http_requests_total")).length).toBeLessThan(250);
  expect((await samples(metrics, "pyodide_executions_total")).length).toBeLessThan(250);
  expect((await samples(metrics, "pyodide_discards_total")).length).toBeLessThan(250);
  expect(await samples(metrics, 'http_requests_total{method="GET",route="/api/status"')).toEqual([
    'http_requests_total{method="GET",route="/api/status",status="200"} 1',
  ]);
});
