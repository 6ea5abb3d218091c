import { writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TEST_WHEELS, testConfig } from "../support/config.ts";
import { py } from "../support/engine.ts";
import { openTestEnvironments } from "../support/environments.ts";
import { type Reply, startTestServer, type TestServer } from "../support/server.ts";

/** A compiled package besides numpy, in the same folder. */
const COMPILED = {
  package: "lxml",
  code: 'from lxml import etree\netree.fromstring("<a><b/></a>")[0].tag',
  result: "b",
};
const ALICE = { "x-api-key": "alice-key-0123456789abcdef" };
const BOB = { "x-api-key": "bob-key-0123456789abcdef000" };

describe.skipIf(TEST_WHEELS === "")("an environment with numpy", () => {
  let server: TestServer;
  beforeAll(async () => {
    const file = path.join(testConfig().DATA_DIR, "environments.json");
    // Its libraries are loaded, its modules are not.
    await writeFile(file, JSON.stringify({ lazy: { packages: ["numpy"], imports: [] } }));
    server = await startTestServer({
      ENVIRONMENTS_FILE: file,
      PYODIDE_PACKAGES: "numpy",
      PACKAGE_DIR: TEST_WHEELS,
      API_KEYS: `alice:${ALICE["x-api-key"]},bob:${BOB["x-api-key"]}`,
    });
  });
  afterAll(async () => await server?.stop(0));

  const run = async (code: string, headers = ALICE, more = {}): Promise<Reply["body"]> =>
    (await server.post("/api/execute", { code, files: "none", ...more }, headers)).body;
  const value = async (code: string, headers = ALICE) => {
    const { result, error, stderr } = await run(code, headers);
    expect({ error, stderr }).toEqual({ error: null, stderr: "" });
    return result;
  };

  test("is built without a warning, and has numpy imported under both names", async () => {
    const { body } = await server.get("/api/environments", ALICE);
    const environment = body.environments.find(({ name }: { name: string }) => name === "default");
    expect(environment).toMatchObject({ warnings: [], packages: [{ name: "numpy" }] });
    expect(await value('import sys\n[np is numpy, np is sys.modules["numpy"], int(np.arange(10).sum())]')).toEqual([
      true,
      true,
      45,
    ]);
  });

  test.each([
    ["a function", 'np.sum = lambda *a: "polluted"', "np.sum([1, 2])", 3],
    ["a method's class", "np.random.Generator = None", "np.random.default_rng(1).integers(0, 10) < 10", true],
    [
      "a setting",
      "np.set_printoptions(precision=1, threshold=1)",
      "str(np.array([1 / 3] * 3))",
      "[0.33333333 0.33333333 0.33333333]",
    ],
    ["how errors are treated", 'np.seterr(all="raise")', 'np.geterr()["divide"]', "warn"],
    [
      "an array that the library keeps",
      "np.ma.nomask\nnp.ma.masked_array.x = 1",
      'hasattr(np.ma.masked_array, "x")',
      false,
    ],
    [
      "bytes behind numpy's back",
      "import ctypes\nctypes.memset(id(np.float64) + 64, 255, 8)\nNone",
      "str(np.float64(1.5))",
      "1.5",
    ],
    [
      "a module that was taken away",
      'import sys\nfor name in [n for n in sys.modules if n.startswith("numpy")]: del sys.modules[name]\ndel np',
      "np.pi > 3",
      true,
    ],
    ["a ufunc", "np.add = np.subtract", "int(np.add(1, 2))", 3],
  ])("%s that one execution changed is as it was in the next", async (_what, pollution, probe, expected) => {
    await run(pollution);
    expect(await value(probe)).toEqual(expected);
  });

  test("what numpy loads when it is first used works before and after a rewind", async () => {
    const code = py`
      import numpy.fft, numpy.ma, numpy.random, numpy.polynomial, numpy.testing, numpy.ctypeslib, numpy.rec, numpy.char, numpy.strings
      from numpy.lib import recfunctions, stride_tricks, scimath, format
      a = np.arange(8.0)
      [np.fft.ifft(np.fft.fft(a)).real.round(9).tolist(), np.ma.array(a, mask=a > 3).sum(), np.char.upper(np.array(["a"])).tolist(),
       str(scimath.sqrt(-1)), np.polynomial.Polynomial([6, -5, 1]).roots().round(9).tolist(), np.linalg.det(np.eye(3) * 2)]`;
    const first = await value(code);
    expect(first).toEqual([[0, 1, 2, 3, 4, 5, 6, 7], 6, ["A"], "1j", [2, 3], expect.closeTo(8)]);
    for (let i = 0; i < 3; i++) expect(await value(code)).toEqual(first);
  });

  test("draws other random numbers in every execution, and the same ones after the same seed", async () => {
    const draw = "[np.random.random(), np.random.default_rng().random(), int(np.random.randint(2**31))]";
    const drawn = [await value(draw), await value(draw), await value(draw)];
    for (const index of [0, 1, 2]) expect(new Set(drawn.map((numbers) => numbers[index])).size).toBe(3);
    const seeded = "np.random.seed(7)\n[np.random.random(), np.random.default_rng(7).random()]";
    expect(await value(seeded)).toEqual(await value(seeded));
  });

  test("what is imported in a session only goes on after it was hibernated, in another interpreter", async () => {
    const create = async () => (await server.post("/api/sessions", { environment: "lazy" }, ALICE)).body.session.id;
    const [session, other] = [await create(), await create()];
    const inSession = async (code: string, id = session) => {
      const { result, error } = await run(code, ALICE, { session: id, files: undefined });
      expect(error).toBe(null);
      return result;
    };
    expect(await inSession('import sys\n"numpy" in sys.modules')).toBe(false);
    await inSession("import numpy as np\na = np.arange(4.0)\nf = np.fft.fft(a)\nm = np.ma.array(a, mask=a > 1)");
    // The only sandbox is taken by others in between.
    for (const id of [other, session]) {
      await inSession("import numpy.random\nnumpy.random.default_rng(1).random()", other);
      expect(await value("1 + 1", BOB)).toBe(2);
      expect(await inSession("import numpy\nnumpy.linalg.det(numpy.eye(2))", id)).toBe(1);
    }
    expect(await inSession("[np.fft.ifft(f).real.round(9), m.sum(), np.polynomial.Polynomial([1, 2])(3), m]")).toEqual([
      [0, 1, 2, 3],
      1,
      7,
      [0, 1, null, null],
    ]);
    // An execution without a session still has to import it.
    const code = 'import sys\n"numpy" in sys.modules';
    expect((await run(code, ALICE, { environment: "lazy" })).result).toBe(false);
  }, 120_000);

  test("a session keeps arrays, views of them and generators in the middle", async () => {
    const { body } = await server.post("/api/sessions", {}, ALICE);
    const session = body.session.id;
    const inSession = async (code: string) => (await run(code, ALICE, { session, files: undefined })).result;
    await inSession(
      "a = np.arange(6).reshape(2, 3)\nv = a[:, 1]\nrng = np.random.default_rng(5)\nfirst = rng.random()",
    );
    const expected = await value("rng = np.random.default_rng(5)\nrng.random()\nrng.random()");
    await inSession("v += 10");
    expect(await inSession("[a, v.base is a or v.base is a.base, rng.random()]")).toEqual([
      [
        [0, 11, 2],
        [3, 14, 5],
      ],
      true,
      expected,
    ]);
  });

  test("a compiled package that one caller installs is that caller's, while others go on", async () => {
    expect((await run(COMPILED.code, BOB)).errorInfo.type).toBe("ModuleNotFoundError");
    const installing = server.post("/api/install-package", { package: COMPILED.package }, ALICE);
    expect(await value("int(np.arange(10).sum())", BOB)).toBe(45);
    expect((await installing).body).toMatchObject({ success: true, message: "Package installed successfully" });
    expect(await value(COMPILED.code)).toBe(COMPILED.result);
    expect(await value("int(np.arange(10).sum())")).toBe(45);
    expect((await run(COMPILED.code, BOB)).errorInfo.type).toBe("ModuleNotFoundError");
    // Derived ones are nobody's to ask for by name.
    const { body } = await server.get("/api/environments", ALICE);
    expect(body.environments.map(({ name }: { name: string }) => name)).toEqual(["stdlib", "default", "lazy"]);
  }, 180_000);

  test("reset takes it away again", async () => {
    await server.post("/api/reset", {}, ALICE);
    expect((await run(COMPILED.code)).errorInfo.type).toBe("ModuleNotFoundError");
  }, 120_000);
});

test.skipIf(TEST_WHEELS === "")(
  "a derived environment is built once for all who have the same packages",
  async () => {
    await using opened = await openTestEnvironments({ PYODIDE_PACKAGES: "numpy", PACKAGE_DIR: TEST_WHEELS });
    const { environments, store, messages } = opened;
    await environments.prepare();
    const install = async (principal: string) =>
      await environments.derive(
        "default",
        (await store.install(principal, COMPILED.package, environments.base("default"))).set,
      );
    const names = await Promise.all(["one", "two", "three"].map(install));
    expect(new Set(names).size).toBe(1);
    expect(
      messages.filter((message) => message.startsWith("Built") && message.includes("default+")).length,
    ).toBeLessThan(2);
    const derived = environments.get(names[0] as string);
    expect(derived.packages.map(({ name }) => name)).toEqual(["lxml", "numpy"]);
    expect(derived.guest?.aliases).toMatchObject({ np: "numpy" });
  },
  180_000,
);
