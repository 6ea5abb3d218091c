import os from "node:os";
import { defineConfig } from "vitest/config";
import { LongestFirst } from "./test/support/longest-first.ts";

/** Rules that documents and source keep, read from the files: `npm run check`. */
const RULES = ["test/rules/**/*.test.ts"];
/** Tests beside the source that start a process: Redis, a server, a sandbox. */
const PROCESSES = ["src/**/*.process.test.ts"];
/** Attacks, hostile input, one caller against another. */
const SECURITY = ["test/security/**/*.test.ts"];
/** Scans: `npm test` runs an even sample of each, the nightly run all of it. */
const SCANS = [
  "test/security/{escapes,fuzz}/**/*.test.ts",
  "src/**/*.property.test.ts",
  "test/**/{deep-structures,open-files,random-sequences,session-kills,session-programs}.test.ts",
];
/** What a scan takes all of, and how much of what has no end. */
const FULL = {
  SCAN_ALL: "1",
  ESCAPES_ALL: "1",
  ESCAPES_MUTATIONS: "1",
  FUZZ_RUNS: "20000",
  SEQUENCES: "200",
  SESSION_KILLS: "200",
  SESSION_PROGRAM_RUNS: "20",
};

/** A worker is a test file with a server and its sandboxes: up to 2 GiB, and idle for a third of its time, while something ends. */
const WORKERS = Math.max(1, Math.min(Math.ceil(os.availableParallelism() * 1.5), Math.floor(os.totalmem() / 2 ** 31)));

/** Deletes at the run's end what tests have left in temporary folders. */
const RUN_FOLDER = "test/support/run-folder.ts";

/** Of projects whose files start processes. The image that they share is built once for all of them. */
const withSandboxes = {
  testTimeout: 60_000,
  hookTimeout: 180_000,
  globalSetup: [RUN_FOLDER, "test/setup.ts"],
};

export default defineConfig({
  test: {
    maxWorkers: WORKERS,
    // A worker that has held gigabytes takes its time to end on a busy machine.
    teardownTimeout: 60_000,
    sequence: { sequencer: LongestFirst },
    projects: [
      { extends: true, test: { name: "rules", include: RULES, testTimeout: 60_000 } },
      {
        extends: true,
        test: {
          name: "unit",
          include: ["src/**/*.test.ts"],
          isolate: false,
          exclude: PROCESSES,
          globalSetup: [RUN_FOLDER],
          setupFiles: ["test/support/no-processes.ts"],
          testTimeout: 20_000,
        },
      },
      {
        extends: true,
        test: {
          name: "sandbox",
          include: ["test/**/*.test.ts", ...PROCESSES],
          exclude: [...RULES, ...SECURITY],
          ...withSandboxes,
        },
      },
      { extends: true, test: { name: "security", include: SECURITY, ...withSandboxes } },
      { extends: true, test: { name: "nightly", include: SCANS, env: FULL, ...withSandboxes } },
    ],
  },
});
