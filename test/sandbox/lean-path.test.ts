/** What most executions take: no session, no context. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { runOn, startTestSandbox } from "../support/sandbox.ts";

let sandbox: Sandbox;
beforeAll(async () => {
  sandbox = await startTestSandbox({ verifyRewind: true });
  await runOn(sandbox, "1");
});
afterAll(async () => {
  sandbox.kill("the test is done");
  await sandbox.ended;
});

test.each([
  ["1+1", 50],
  ["print(1+1)", 50],
  ["pass", 60],
])("%s writes to at most %i pages", async (code, pages) => {
  const { verdict } = await runOn(sandbox, code);
  expect(verdict).toMatchObject({ state: "pristine" });
  console.info(`${code}: ${verdict.state === "pristine" ? verdict.restoredPages : ""} pages`);
  expect(verdict.state === "pristine" && verdict.restoredPages).toBeLessThanOrEqual(pages);
});

test("generators are seeded from outside, anew for each execution", async () => {
  const draw =
    "import random\nstate = random.getstate()[1]\n[state[0], state[-1], random.random(), random.gauss(), random.getrandbits(64)]";
  const drawn = [];
  for (let round = 0; round < 3; round++) drawn.push((await runOn(sandbox, draw)).result.result as number[]);
  for (const [first, position] of drawn) {
    // Python's own seeding always leaves this number here.
    expect(first).not.toBe(0x8000_0000);
    expect(position).toBe(624);
  }
  expect(new Set(drawn.flat()).size).toBe(3 * 4 + 1);
});

test("what Python remembers of folders in an image is the same for every execution", async () => {
  const { result } = await runOn(sandbox, "import sys\nsorted(p for p in sys.path_importer_cache)");
  const paths = result.result as string[];
  expect(paths.length).toBeGreaterThan(0);
  for (const path of paths) expect(path).toMatch(/^\/lib\/(python|importlib_bootstrap)/);
  await runOn(
    sandbox,
    "open('fresh.py', 'w').write('v = 1')\nimport fresh, sys\nfresh.v, sys.path_importer_cache.get('')",
  );
  const again = await runOn(sandbox, "try:\n  import fresh\nexcept ImportError:\n  out = 'gone'\nout");
  expect(again.result.result).toBe("gone");
});

/** Each as one line, which may be read as one expression, and as two, which may not. */
describe("a line that may be an expression gives what it gives among other lines", () => {
  test.each([
    ..."1+1|'a'|None|(1, 2)|[i for i in range(3)]|lambda: 1|dict(a=1, b=[2])|1 if 0 else 2|{'a': {1}}|not 1|f'{1+1!r:>4}'".split(
      "|",
    ),
    ..."x = 1|x=1|x += 1|x: int = 1|x == 1|(x := 5)|print(1)|print 1|print(1|1)|5;|5; 6|5 # five|# five|1 is 1|'a' is 'a'".split(
      "|",
    ),
    ..."await f()|yield 1|[await f() for _ in 'ab']|return 1|import os|from os import path|import|match (1)|type(1)|global x".split(
      "|",
    ),
    ..."0x1for x in [1]|1if 1else 2|0_1|1_000|1e5|'\\d'|\"\"|'|x.y.z|raise KeyError|assert 0|assert (0, 'a')|del x|1/0|__debug__".split(
      "|",
    ),
    ..."import('os')|...|*a|*[1],|a, b|lambda|(|)|((((1))))|-1|~1|+1|@x|pass|%pwd|!ls|?print|1 <= 2 != 3|x <= 1|'é'|é".split(
      "|",
    ),
  ])("%s", async (line) => {
    const look = async (code: string) => {
      const { result } = await runOn(sandbox, code);
      const { errorInfo, stdout, stderr, outputs } = result;
      // Lines have other numbers, and addresses are other ones.
      const plain = (text: string) => text.replace(/line \d+|0x[0-9a-f]+|<exec>:\d+/g, "…").replace(/^.*?(?=\S)/, "");
      return {
        value: typeof result.result === "string" ? plain(result.result) : result.result,
        type: errorInfo?.type,
        message: plain(errorInfo?.message ?? ""),
        column: errorInfo?.column,
        stdout,
        stderr: plain(stderr),
        outputs: outputs.length,
      };
    };
    const alone = await look(line);
    expect(alone).toEqual(await look(`# a line before it\n${line}`));
  });
});
