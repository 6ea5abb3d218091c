import { afterEach, describe, expect, test } from "vitest";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { TEST_WHEELS } from "../support/config.ts";
import { py } from "../support/engine.ts";

process.env.TEST_PACKAGES = "numpy";
const { runOn, startTestSandbox } = await import("../support/sandbox.ts");

/** Sums, products, sorting, FFT, decomposition, printing, memory layout, addresses: whatever could differ. */
const PROGRAMS = [
  py`
    np.random.seed(3)
    a = np.random.random((50, 50))
    [np.linalg.det(a), np.fft.fft(a[0]).real.tolist(), np.sort(a, axis=None)[:9].tolist(), (a @ a).sum(), str(a[:2, :2])]`,
  "import hashlib\nhashlib.sha256(np.random.default_rng(9).bytes(10_000)).hexdigest()",
  "[np.arange(10).strides, np.arange(1000).ctypes.data, id(np), hash('text'), np.__config__.show(mode='dicts')['Build Dependencies']]",
  "np.ma.array([1, 2], mask=[0, 1]).sum() + 1 / 0",
  "import gc\nsorted(map(id, gc.get_objects()))[:50]",
];

describe.skipIf(TEST_WHEELS === "")("two processes that boot from one image", () => {
  const sandboxes: Sandbox[] = [];
  afterEach(() => {
    for (const sandbox of sandboxes.splice(0)) sandbox.kill("the test is over");
  });

  test("are the same byte for byte, and do the same, also after a rewind", async () => {
    for (let index = 0; index < 2; index++) sandboxes.push(await startTestSandbox({ hashBaseline: true }));
    const [first, second] = sandboxes as [Sandbox, Sandbox];
    expect(first.baseline).toMatch(/^[0-9a-f]{64}$/);
    expect(second.baseline).toBe(first.baseline);
    const outcomes = async (sandbox: Sandbox) => {
      const results = [];
      for (const code of [...PROGRAMS, ...PROGRAMS]) {
        const { result, verdict } = await runOn(sandbox, code, { reseed: false });
        expect(verdict.state).toBe("pristine");
        results.push([result.result, result.error, result.stdout]);
      }
      return results;
    };
    const expected = await outcomes(first);
    expect(expected.slice(PROGRAMS.length)).toEqual(expected.slice(0, PROGRAMS.length));
    expect(await outcomes(second)).toEqual(expected);
  }, 120_000);
});
