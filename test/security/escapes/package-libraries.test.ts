import { afterAll, describe, expect, test, vi } from "vitest";
import { COMPILED_TAG, EXTENSION_SUFFIX, sharedLibrary } from "../../../src/packages/testing/shared-libraries.ts";
import { makeWheel } from "../../../src/packages/testing/wheels.ts";
import { type Layer, withoutLayers } from "./layers.ts";
import { Mutant } from "./mutant.ts";
import { record } from "./scoreboard.ts";
import { Target } from "./target.ts";

/** Libraries that come in a wheel, and whose code runs when a sandbox is started: before it was ready, in f14c18f with all that it had then. */
vi.setConfig({ testTimeout: 300_000 });

const HEAD = `(import "env" "memory" (memory 1)) (import "env" "__memory_base" (global $base i32))
  (func (export "PyInit__x") (result i32) (i32.const 0))`;
const CALLS = '(import "env" "JsvArray_New" (func $call (result externref)))';

/** By the way in which its code comes to run. Each makes an object of JavaScript's. */
const REACHING: Readonly<Record<string, string>> = {
  constructors: `(module ${CALLS} ${HEAD} (func (export "__wasm_call_ctors") (drop (call $call))))`,
  relocations: `(module ${CALLS} ${HEAD} (func (export "__wasm_apply_data_relocs") (drop (call $call))))`,
  start: `(module ${CALLS} ${HEAD} (func $start (drop (call $call))) (start $start))`,
};

/** Only once a sandbox serves is it later than 1970. */
const LATER = `(module (import "env" "emscripten_get_now" (func $now (result f64))) ${HEAD}
  (func (export "__wasm_call_ctors") (if (f64.gt (call $now) (f64.const 1e11)) (then unreachable))))`;

/** What stays as libraries leave it, unless it is put back: a session that is captured afterwards is lost. */
const LIMITS = `(module (import "env" "emscripten_stack_set_limits" (func $limits (param i32 i32))) ${HEAD}
  (func (export "__wasm_call_ctors") (call $limits (i32.const 1000000) (i32.const 0))))`;

const GROWING = `(module ${HEAD} (func (export "__wasm_call_ctors") (drop (memory.grow (i32.const 1)))))`;

async function wheelOf(name: string, wat: string): Promise<[file: string, bytes: Uint8Array]> {
  const files = { [`${name}/__init__.py`]: "value = 1\n", [`${name}/_x${EXTENSION_SUFFIX}`]: sharedLibrary(wat) };
  const { filename, bytes } = await makeWheel({ name, version: "1.0", tag: COMPILED_TAG, files });
  return [`wheels/${filename}`, bytes];
}

async function openTarget(layers: readonly Layer[]): Promise<{ target: Target; close: () => Promise<void> }> {
  const libraries = { ...REACHING, later: LATER, limits: LIMITS, growing: GROWING };
  const wheels = await Promise.all(Object.entries(libraries).map(([name, wat]) => wheelOf(name, wat)));
  const mutant = layers.length > 0 ? new Mutant(withoutLayers(layers)) : null;
  const settings = { PACKAGE_DIR: "DATA_DIR/wheels", ...(mutant && { CACHE_DIR: mutant.cacheDir }) };
  const target = await Target.start({
    settings,
    files: Object.fromEntries(wheels),
    ...(mutant && { source: mutant.folder }),
  });
  return {
    target,
    close: async () => {
      await target.stop();
      mutant?.[Symbol.dispose]();
    },
  };
}

const install = async (target: Target, name: string) =>
  (
    await target.send("/api/install-package", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ package: name }),
    })
  ).body;

describe("a library in a wheel", () => {
  let opened: Awaited<ReturnType<typeof openTarget>> | undefined;
  const server = async () => {
    opened ??= await openTarget([]);
    return opened.target;
  };
  afterAll(async () => await opened?.close());

  test.each(Object.keys(REACHING))("that makes objects of JavaScript's (%s) is refused by name", async (name) => {
    const target = await server();
    const body = await install(target, name);
    record("libraries of packages", "all", { attacks: { [name]: "" }, succeeded: body.success ? [name] : [] });
    expect(body).toMatchObject({ success: false, error: expect.stringContaining("asks for env.JsvArray_New") });
    expect(body.error).toContain("_x.cpython-314-wasm32-emscripten.so is not safe");
    // Others go on.
    expect((await target.run("6 * 7", {}, "alices-own-key-here")).body).toMatchObject({ result: 42 });
  });

  test("that grows the memory by itself is refused", async () => {
    expect(await install(await server(), "growing")).toMatchObject({
      success: false,
      error: expect.stringContaining("memory.grow"),
    });
  });

  test("that fails only where a sandbox serves is not installed", async () => {
    const target = await server();
    const body = await install(target, "later");
    expect(body).toMatchObject({ success: false, error: expect.stringContaining("no sandbox starts with them") });
    expect(JSON.stringify(body)).not.toMatch(/file:|\/src\//);
    expect((await target.run("6 * 7")).body).toMatchObject({ result: 42 });
  });

  test("that moves the stack's limits costs no session its state", async () => {
    const target = await server();
    expect(await install(target, "limits")).toMatchObject({ success: true });
    const { body } = await target.send("/api/sessions", { method: "POST" });
    const { id } = body.session;
    expect((await target.run("import limits\nx = [limits.value]", { session: id })).body).toMatchObject({
      success: true,
    });
    // The only sandbox goes to another, and the session wakes.
    await target.run("1", {}, "alices-own-key-here");
    expect((await target.run("x + [2]", { session: id })).body).toMatchObject({ result: [1, 2] });
  });
});

describe("without the check of libraries", () => {
  let opened: Awaited<ReturnType<typeof openTarget>> | undefined;
  const server = async () => {
    opened ??= await openTarget(["library-check"]);
    return opened.target;
  };
  afterAll(async () => await opened?.close());

  test.each(Object.keys(REACHING))("the walls stop it alone (%s)", async (name) => {
    const body = await install(await server(), name);
    expect(body).toMatchObject({ success: false, error: expect.stringContaining("it calls JsvArray_New") });
  });
});

test("control: where libraries are loaded before the walls stand, they reach JavaScript", async () => {
  const { target, close } = await openTarget(["library-check", "walls-first"]);
  try {
    for (const name of Object.keys(REACHING)) expect(await install(target, name)).toMatchObject({ success: true });
  } finally {
    await close();
  }
});

test("control: where an image is not tried out, what fails in a sandbox only is installed", async () => {
  const { target, close } = await openTarget(["try-out"]);
  try {
    expect(await install(target, "later")).toMatchObject({ success: true });
  } finally {
    await close();
  }
});
