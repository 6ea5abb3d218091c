import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Clock } from "../../src/guest/interpreter/clock.ts";
import { RESOLUTION_MS } from "../../src/guest/interpreter/clock-resolution.ts";
import { py, startTestEngine, type TestEngine } from "../support/engine.ts";

const START_MS = 1_795_656_841_694.125;
const STEP_MS = 1 / 1024;

/** A clock of a process whose time goes on by a microsecond at each look. */
function withSteps() {
  let fineMs = START_MS;
  const clock = new Clock(() => fineMs);
  return { clock, step: () => (fineMs += STEP_MS) };
}

/** Ticks since 1970. */
const ticks = (readingMs: number) => readingMs / RESOLUTION_MS;

describe("the clock of a sandbox", () => {
  test("goes in whole ticks, never back, never before its time and at most two ticks behind", () => {
    const { clock, step } = withSteps();
    let last = 0;
    for (let i = 0; i < 100_000; i++) {
      const fineMs = step();
      const reading = clock.nowMs();
      expect(Math.abs(ticks(reading) - Math.round(ticks(reading)))).toBeLessThan(0.01);
      expect(reading).toBeGreaterThanOrEqual(last);
      expect(reading).toBeLessThanOrEqual(fineMs);
      expect(fineMs - reading).toBeLessThan(2.01 * RESOLUTION_MS);
      last = reading;
    }
  });

  test("ticks when nobody can foresee it: counting until it does gives no finer time", () => {
    const { clock, step } = withSteps();
    const parts = new Set<number>();
    let last = clock.nowMs();
    for (let i = 0; i < 100_000; i++) {
      const fineMs = step();
      const reading = clock.nowMs();
      // In which tenth of a tick's time it came. At most 98 looks are made in one.
      if (reading > last) parts.add(Math.floor((ticks(fineMs) % 1) * 10));
      last = reading;
    }
    expect([...parts].sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  test("a session finds itself exactly where it went to sleep, or later, on a machine whose clock is behind", () => {
    const { clock, step } = withSteps();
    for (let i = 0; i < 10_000; i++) {
      const takenAlong = clock.nowMs() + 3_600_000;
      const behind = new Clock(() => START_MS - i / 7);
      behind.advanceTo(takenAlong);
      expect(behind.nowMs()).toBeGreaterThanOrEqual(takenAlong);
      expect(behind.nowMs() - takenAlong).toBeLessThan(2.01 * RESOLUTION_MS);
      step();
    }
  });

  test("is the process's own again for the next", () => {
    const clock = new Clock(() => START_MS);
    const before = clock.nowMs();
    clock.advanceTo(START_MS + 10_000);
    clock.reset();
    expect(clock.nowMs()).toBe(before);
  });
});

describe("Python's clocks", () => {
  let tested: TestEngine;
  beforeAll(async () => {
    tested = await startTestEngine();
  });
  afterAll(() => tested.stop());

  test("say how fine they are, to asyncio too", async () => {
    const code = py`
      import asyncio, time
      [time.get_clock_info(name).resolution for name in ("time", "monotonic", "perf_counter")] + [
          time.clock_getres(1), asyncio.get_event_loop()._clock_resolution]`;
    expect(await tested.run(code)).toMatchObject({ result: [0.001, 0.0001, 0.0001, 0.0001, 0.0001] });
  });

  test("do not go back, and no sleep is shorter than it was to be", async () => {
    const code = py`
      import asyncio, time
      readings = [time.monotonic_ns() for _ in range(20000)]
      short = []
      for seconds in (0, 0.00001, 0.0001, 0.00015, 0.001, 0.01):
          start = time.monotonic(); time.sleep(seconds)
          if time.monotonic() - start < seconds - 1e-6: short.append(seconds)
          start = time.monotonic(); await asyncio.sleep(seconds)
          # It may come a tick early: asyncio takes what is due within the clock's resolution for due.
          if time.monotonic() - start < seconds - 0.0001 - 1e-6: short.append(-seconds)
      readings == sorted(readings), short`;
    expect(await tested.run(code)).toMatchObject({ result: [true, []] });
  });

  test("are what an execution's time is told by, in whole ticks", async () => {
    const { executionTimeMs } = await tested.run("import time\ntime.sleep(0.02)");
    expect(executionTimeMs).toBeGreaterThanOrEqual(20 - 2 * STEP_MS);
    expect(Math.abs(ticks(executionTimeMs) - Math.round(ticks(executionTimeMs)))).toBeLessThan(0.01);
  });
});
