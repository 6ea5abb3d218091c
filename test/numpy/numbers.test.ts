import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TEST_WHEELS } from "../support/config.ts";
import { py, startTestEngine, type TestEngine } from "../support/engine.ts";

/** What `docs/environments.md` says of numpy on this platform: where that changes, the document has to. */
describe.skipIf(TEST_WHEELS === "")("numpy's numbers", () => {
  let tested: TestEngine;
  beforeAll(async () => {
    tested = await startTestEngine({ POOL_SIZE: "1", PYODIDE_PACKAGES: "numpy,tqdm,sympy", PACKAGE_DIR: TEST_WHEELS });
  });
  afterAll(async () => await tested?.stop());
  const value = async (code: string) => {
    const { result, stderr } = await tested.run(code);
    expect(stderr).toBe("");
    return result;
  };

  test("integers have 32 bits, and more where that is asked for", async () => {
    const code = py`
      out = [str(np.arange(3).dtype), int((np.arange(100000) ** 2).sum()), int((np.arange(100000, dtype=np.int64) ** 2).sum())]
      out += [str(np.array([2**40]).dtype), int(np.prod(np.full(40, 2, dtype=np.int64)))]
      out.append(str(np.random.default_rng().integers(0, 2**40, 1).dtype))
      try: np.random.randint(0, 2**40, 1)
      except ValueError as error: out.append(str(error))
      out`;
    expect(await value(code)).toEqual([
      "int32",
      216474736,
      333328333350000,
      "int64",
      2 ** 40,
      "int64",
      "high is out of bounds for int32",
    ]);
  });

  test("what is singular gives NaN, and nothing warns of an array's divisions", async () => {
    const code = py`
      import warnings
      warnings.simplefilter("error")
      zero = np.zeros((2, 2))
      with np.errstate(all="raise"):
        out = [np.linalg.inv(zero), np.linalg.solve(zero, np.ones(2)), np.linalg.cholesky(-np.eye(2)), np.linalg.matrix_power(zero, -1)]
        out = [bool(np.isfinite(array).any()) for array in out]
        out += [str(np.array([1.0, 0.0]) / 0), str(np.exp(np.array([1000.0]))), str(np.array([1]) // 0)]
      out + [int(np.linalg.matrix_rank(zero)), str(np.linalg.cond(zero))]`;
    expect(await value(code)).toEqual([false, false, false, false, "[inf nan]", "[inf]", "[0]", 0, "inf"]);
  });

  test("numpy's shared generator is seeded from outside, anew for each execution", async () => {
    const draw =
      "kind, key, position, *kept = np.random.get_state()\n[int(key[0]), int(position), float(np.random.normal())]";
    const drawn = [];
    for (let round = 0; round < 3; round++) drawn.push((await value(draw)) as number[]);
    // Its own seeding always leaves the first of these numbers.
    for (const [first, position] of drawn) expect([first === 0x8000_0000, position]).toEqual([false, 624]);
    expect(new Set(drawn.map(([, , number]) => number)).size).toBe(3);
  });

  test("sympy prints as in a notebook", async () => {
    const code =
      "import sympy\nsympy.init_printing(use_latex='mathjax')\nx = sympy.symbols('x')\ndisplay(x**2 / 2, [1])\nx + 1";
    const { error, result, outputs } = await tested.run(code);
    expect({ error, result }).toEqual({ error: null, result: "x + 1" });
    expect(outputs[0]).toMatchObject({ "text/latex": expect.stringContaining("x^{2}") });
  });

  test("tqdm does not warn that it has no thread for its monitor", async () => {
    const { result, stderr } = await tested.run("import tqdm\n[i for i in tqdm.tqdm(range(3))]");
    expect(result).toEqual([0, 1, 2]);
    expect(stderr).toContain("3/3");
    expect(stderr).not.toMatch(/monitor/i);
  });
});
