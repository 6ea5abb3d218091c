import { loadConfig } from "../../src/config.ts";
import { ImageCache } from "../../src/environments/image-cache.ts";
import type { GuestOptions } from "../../src/sandbox/protocol.ts";
import { type Job, type JobResult, Sandbox } from "../../src/sandbox/sandbox.ts";
import { openHost } from "../../src/server.ts";
import { TEST_CACHE_DIR } from "./config.ts";

/** One sandbox of the standard library, without a pool. */
export async function startTestSandbox(guest: Partial<GuestOptions> = {}): Promise<Sandbox> {
  const config = loadConfig({ CACHE_DIR: TEST_CACHE_DIR });
  const host = await openHost(config);
  const images = new ImageCache({ cacheDir: config.CACHE_DIR, host, onProgress: () => {} });
  const { path } = await images.snapshot();
  return await Sandbox.start({
    ...host,
    guest: {
      snapshotPath: path,
      environment: null,
      preload: [],
      maxHeapBytes: config.SANDBOX_MAX_HEAP_MB * 1024 * 1024,
      hashCheckpoint: false,
      ...guest,
    },
  });
}

/** Runs code on a sandbox that is nobody's, and waits until it has rewound. */
export async function runOn(sandbox: Sandbox, code: string, job: Partial<Job> = {}) {
  const result: JobResult = await sandbox.execute({
    code,
    context: null,
    stdin: "",
    timeoutMs: 20_000,
    mode: "stateless",
    reseed: true,
    files: null,
    packages: null,
    signal: undefined,
    onOutput: undefined,
    onDisplay: undefined,
    onCall: () => Promise.reject(new Error("nothing is offered here")),
    ...job,
  });
  return { result, verdict: await sandbox.idle };
}
