import { Sandbox, SandboxNotFoundError, TimeoutError } from "@e2b/code-interpreter";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasRedis, startRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/until.ts";
import { type E2bServer, startE2bServer } from "./e2b-sdk.ts";

if (!hasRedis) console.warn("There is no redis-server on this machine: its tests are skipped.");

describe.skipIf(!hasRedis)("sandboxes on a fleet", () => {
  let redis: TestRedis;
  let a: E2bServer;
  let b: E2bServer;

  beforeAll(async () => {
    redis = await startRedis();
    const settings = { REDIS_URL: redis.url, SESSION_DURABILITY: "commit" };
    [a, b] = await Promise.all([startE2bServer(settings), startE2bServer(settings)]);
  });
  afterAll(async () => {
    await Promise.all([a?.stop(0), b?.stop(0)]);
    await redis?.stop();
  });

  /** The same sandbox, by the other server: with the token that the first has given. */
  const onOther = async (sandbox: Sandbox) => await Sandbox.connect(sandbox.sandboxId, b.connection());

  test("go on wherever they are asked for, with their contexts, files and tokens", async () => {
    const sandbox = await a.sandbox({ envs: { A: "1" } });
    const context = await sandbox.createCodeContext();
    await sandbox.runCode("x = 1", { context });
    await sandbox.files.write("f", "content");
    const other = await onOther(sandbox);
    expect((await other.runCode("import os; x, os.environ['A'], open('/home/user/f').read()", { context })).text).toBe(
      "(1, '1', 'content')",
    );
    expect(await other.listCodeContexts()).toEqual(await sandbox.listCodeContexts());
    expect((await other.commands.run("cat f")).stdout).toBe("content");
    expect((await other.fork())[0]).toBeInstanceOf(Sandbox);
  });

  test("end at their time, and are paused and resumed on every server", async () => {
    const short = await a.sandbox({ timeoutMs: 1000 });
    await until(
      async () =>
        (await Sandbox.getInfo(short.sandboxId, b.connection()).catch((error) => error)) instanceof
        SandboxNotFoundError,
    );
    const paused = await a.sandbox();
    await paused.runCode("x = 1");
    const other = await onOther(paused);
    expect(await other.pause()).toBe(true);
    await expect(paused.runCode("x")).rejects.toThrow(TimeoutError);
    expect(await paused.pause()).toBe(false);
    await paused.connect();
    expect((await other.runCode("x")).text).toBe("1");
  });

  test("are paused and killed while another server runs code in them", async () => {
    const sandbox = await a.sandbox();
    const other = await onOther(sandbox);
    const start = async (code: string) => {
      const begun = Promise.withResolvers<void>();
      const ran = sandbox.runCode(`${code}print('begun', flush=True)\nwhile True: pass`, {
        onStdout: () => begun.resolve(),
      });
      // The server that runs it may not know yet why it is to stop.
      const ended = ran.then(
        ({ error }) => error?.name === "Cancelled",
        (error) => error instanceof TimeoutError,
      );
      await begun.promise;
      return { ended };
    };
    const first = await start("x = 1\n");
    // What waits in the other server's line does not run either.
    const waiting = ["1", "2"].map((n) =>
      sandbox.runCode(`while True: ${n}`).then(
        ({ error }) => error?.name === "interrupted" || error?.name === "Cancelled",
        () => true,
      ),
    );
    expect(await other.pause()).toBe(true);
    expect(await first.ended).toBe(true);
    expect(await Promise.all(waiting)).toEqual([true, true]);
    await sandbox.connect();
    expect((await other.runCode("x")).text).toBe("1");
    const second = await start("");
    expect(await other.kill()).toBe(true);
    expect(await second.ended).toBe(true);
    expect(await sandbox.isRunning()).toBe(false);
  });
});
