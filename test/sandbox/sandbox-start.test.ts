import { execFileSync } from "node:child_process";
import { open } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Mutant } from "../security/escapes/mutant.ts";
import { guestOptions } from "../support/sandbox.ts";

const START_TIMEOUT_MS = 60_000;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
});
afterEach(() => {
  vi.useRealTimers();
});

test("a process that is not ready in time is ended, and the error has what it printed", async () => {
  using source = new Mutant([
    {
      file: "guest/io/shared-state.ts",
      exports: {
        createShared: `() => () => {
          console.error("something is wrong here");
          Deno.openSync(new URL("../../../image", import.meta.url));
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
        }`,
      },
    },
  ]);
  const { Sandbox }: typeof import("../../src/sandbox/sandbox.ts") = await import(
    pathToFileURL(path.join(source.folder, "src/sandbox/sandbox.ts")).href
  );
  const baseImagePath = path.join(source.folder, "image");
  execFileSync("mkfifo", [baseImagePath]);
  const started = Sandbox.start({
    guest: guestOptions({ baseImagePath }),
    memoryMb: 512,
    isCompact: false,
    isolation: { tool: "none", layers: [], rejected: [], wrapping: null },
    denoDir: null,
    startTimeoutMs: START_TIMEOUT_MS,
    maxCpuTimeMs: 0,
  });
  const rejected = expect(started).rejects.toThrow(
    "The sandbox process failed to start: it was not ready within 60000 ms: something is wrong here",
  );
  // Opens when the process opens the other end, after which it waits for nothing.
  const image = await open(baseImagePath, "w");
  vi.advanceTimersByTime(START_TIMEOUT_MS);
  await rejected;
  await image.close();
});
