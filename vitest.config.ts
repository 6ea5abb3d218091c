import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    // Each file that needs sandboxes starts its own; two cores carry no more than two such files at once.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 180_000,
    // A worker that has held gigabytes takes its time to end on a busy machine.
    teardownTimeout: 60_000,
    globalSetup: ["test/setup.ts"],
  },
});
