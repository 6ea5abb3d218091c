import path from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { testConfig } from "../support/config.ts";
import { guestOptions, runOn } from "../support/sandbox.ts";
import { Mutant } from "./escapes/mutant.ts";

/** A sandbox that an attacker has taken over: its main thread asks to be asked for output, and never reads the answers. */
const ASKS_AND_DOES_NOT_READ = [
  {
    file: "guest/interpreter/interpreter.ts",
    methods: {
      // Not where the standard library is compiled for the image.
      "Interpreter.perform": `(perform) => function (message, body) {
        if (message.program?.code === "1") for (;;) globalThis[Symbol.for("host")].report({ type: "printed" });
        return perform.call(this, message, body);
      }`,
    },
  },
  {
    file: "guest/io/host-connection.ts",
    exports: {
      HostConnection: `(HostConnection) => class extends HostConnection {
        constructor(...about) {
          super(...about);
          globalThis[Symbol.for("host")] = this;
        }
      }`,
    },
  },
  {
    file: "guest/io/frame-writer.ts",
    methods: {
      "FrameWriter.sendOutput": "() => () => { Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); }",
    },
  },
];

test("a sandbox that asks without end and does not read is ended before the answers fill the server's memory", {
  timeout: 120_000,
}, async () => {
  using source = new Mutant(ASKS_AND_DOES_NOT_READ);
  const load = (file: string) => import(pathToFileURL(path.join(source.folder, "src", file)).href);
  const { openHost }: typeof import("../../src/compose/host.ts") = await load("compose/host.ts");
  const { ImageCache }: typeof import("../../src/environments/images.ts") = await load("environments/images.ts");
  const { Sandbox }: typeof import("../../src/sandbox/sandbox.ts") = await load("sandbox/sandbox.ts");
  const host = await openHost(testConfig({ CACHE_DIR: source.cacheDir }));
  const { path: baseImagePath, stdlibPath } = await new ImageCache({
    cacheDir: source.cacheDir,
    host,
    onProgress: () => {},
  }).base();
  const sandbox = await Sandbox.start({ ...host, guest: guestOptions({ baseImagePath, stdlibPath }) });
  const { result } = await runOn(sandbox as never, "1", { timeoutMs: 60_000 });
  expect(result).toMatchObject({ status: "sandbox_died" });
  expect(await sandbox.ended).toContain("it does not read what it asks for");
});
