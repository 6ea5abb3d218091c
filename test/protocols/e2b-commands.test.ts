import { CommandExitError, type Sandbox, TimeoutError } from "@e2b/code-interpreter";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { type E2bServer, startE2bServer } from "./e2b-sdk.ts";

let server: E2bServer;
let sandbox: Sandbox;

beforeAll(async () => {
  server = await startE2bServer();
  sandbox = await server.sandbox({ envs: { FROM: "sandbox" } });
});
afterAll(async () => await server.stop(0));

const run = async (command: string, options: Parameters<Sandbox["commands"]["run"]>[1] = {}) => {
  try {
    const { exitCode, stdout, stderr } = await sandbox.commands.run(command, { ...options, background: false });
    return { exitCode, stdout, stderr };
  } catch (error) {
    if (!(error instanceof CommandExitError)) throw error;
    const { exitCode, stdout, stderr } = error;
    return { exitCode, stdout, stderr };
  }
};

describe("commands", () => {
  test.each([
    ["pwd", "/home/user\n"],
    ["echo hello", "hello\n"],
    ["echo -n 'a  b' \"c $FROM\" '$FROM' \\$x", "a  b c sandbox $FROM $x"],
    ["python -c 'print(1 + 1)'", "2\n"],
    ["python3 -c 'import sys; print(sys.argv, __name__)' a 'b c'", "['-c', 'a', 'b c'] __main__\n"],
    ["python3 --version", expect.stringMatching(/^Python 3\.\d+\.\d+\n$/)],
    ["echo 'print(\"é\" * 2)' | python3", "éé\n"],
    ["mkdir -p d/e && touch d/b d/a && ls d", "a\nb\ne\n"],
    ["mkdir -p g && touch g/x.py g/y.txt && ls g/*.py", "g/x.py\n"],
    ["echo one > f && echo two >> f && cat f && wc -l < f", "one\ntwo\n2\n"],
    ["cat f | head -n 1; tail -n 1 f", "one\ntwo\n"],
    ["cp f c && mv c m && cat m && rm m && ls m 2>/dev/null || echo gone", "one\ntwo\ngone\n"],
    ["X=1; echo $X && Y=2 python -c 'import os; print(os.environ[\"Y\"])'", "1\n2\n"],
    ["cd d && pwd; cd; pwd", "/home/user/d\n/home/user\n"],
    ["test -d d && [ -f f ] && echo both # a comment", "both\n"],
    ["false; echo $?", "1\n"],
    ["true && false || echo else", "else\n"],
    ["which python nothing || whoami", "/usr/bin/python\nuser\n"],
    ["printf '%s-%s\\n' a b", "a-b\n"],
    ["ls -la d | wc -l", "5\n"],
    ["sudo echo as root", "as root\n"],
    ["pip --version", expect.stringContaining("pip")],
  ])("%s", async (command, stdout) => {
    expect(await run(command)).toEqual({ exitCode: 0, stdout, stderr: "" });
  });

  test.each([
    ["git status", 127, "git: command not found. This sandbox is a Python without a shell: there are cat, cd, "],
    ["ls nothing", 1, "ls: nothing: No such file or directory"],
    ["cat nothing", 1, "No such file or directory"],
    ["rm nothing", 1, "No such file or directory"],
    ["python nothing.py", 2, "can't open file '/home/user/nothing.py': [Errno 44] No such file or directory"],
    ["python -c '1/0'", 1, 'File "<string>", line 1, in <module>\nZeroDivisionError: division by zero'],
    ["python -c 'import sys; sys.exit(3)'", 3, ""],
    ["python -c 'raise SystemExit(\"why\")'", 1, "why\n"],
    ["for i in 1 2; do echo $i; done", 2, "'for' is not supported: this sandbox is a Python without a shell."],
    ["echo $(ls)", 2, "is not supported"],
    ["echo `ls`", 2, "is not supported"],
    ["sleep 1 & ls", 2, "'&' is not supported"],
    ["echo 'open", 2, "a quote that is not closed"],
    ["pip install nothing-of-this-name", 1, "nothing-of-this-name"],
    ["pip install nothing-of-this-name && echo done", 1, "nothing-of-this-name"],
    ["pip install --target=x y", 1, "pip: install --target=x: the option does nothing here"],
    ["pip uninstall x", 1, "only install, list and freeze"],
    ["exit_of_nothing", 127, "command not found"],
  ])("%s has exit status %i", async (command, exitCode, stderr) => {
    expect(await run(command)).toMatchObject({ exitCode, stderr: expect.stringContaining(stderr) });
  });

  test("run programs on the sandbox's files, each as a process of its own", async () => {
    await sandbox.runCode("kept = 1");
    await sandbox.files.write("project/helper.py", "value = 1");
    await sandbox.files.write(
      "project/main.py",
      "import sys, helper\nkept = 2\nprint(helper.value, sys.argv[1:], __file__)\nopen('out', 'w').write('o')",
    );
    const ran = await run("python main.py x", { cwd: "/home/user/project" });
    expect(ran).toMatchObject({ exitCode: 0, stdout: "1 ['x'] main.py\n" });
    await sandbox.files.write("project/helper.py", "value = 22");
    expect((await run("cd project && python3 main.py")).stdout).toBe("22 [] main.py\n");
    expect(await sandbox.files.read("/home/user/project/out")).toBe("o");
    const { text, executionCount } = await sandbox.runCode("kept, [n for n in globals() if 'command' in n]");
    expect(text).toBe("(1, [])");
    expect(executionCount).toBe(2);
    expect((await sandbox.listCodeContexts()).map(({ id }) => id)).toEqual(["default"]);
  });

  test("have variables and a folder of their own", async () => {
    expect((await run("env | wc -l; echo $A $FROM", { envs: { A: "a" } })).stdout).toMatch(/^\d+\na sandbox\n$/);
    expect(await run("cd /tmp; export B=1")).toMatchObject({ exitCode: 0 });
    expect(await run("pwd; echo $A$B.")).toMatchObject({ stdout: "/home/user\n.\n" });
    expect(await run("pwd", { cwd: "/nowhere" })).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining("/nowhere"),
    });
    expect((await run("pwd", { cwd: "/tmp" })).stdout).toBe("/tmp\n");
  });

  test("print while they run, and end when they are killed", async () => {
    const printed = Promise.withResolvers<string>();
    const command = await sandbox.commands.run("python -c 'print(1, flush=True)\nwhile True: pass'", {
      background: true,
      onStdout: (text) => printed.resolve(text),
    });
    expect(await printed.promise).toBe("1\n");
    const listed = await sandbox.commands.list();
    expect(listed).toEqual([expect.objectContaining({ pid: command.pid, cmd: "/bin/bash" })]);
    const other = await sandbox.commands.connect(command.pid);
    expect(await command.kill()).toBe(true);
    await expect(command.wait()).rejects.toMatchObject({ exitCode: -1, error: "signal: killed" });
    await expect(other.wait()).rejects.toThrow(CommandExitError);
    expect(await command.kill()).toBe(false);
    expect(await sandbox.commands.list()).toEqual([]);
    await expect(sandbox.commands.connect(command.pid)).rejects.toThrow(`process ${command.pid} not found`);
    expect((await sandbox.runCode("1")).text).toBe("1");
  });

  test("are followed by so many connections and no more", async () => {
    const command = await sandbox.commands.run("python -c 'while True: pass'", { background: true });
    const followers = await Promise.all(Array.from({ length: 63 }, () => sandbox.commands.connect(command.pid)));
    await expect(sandbox.commands.connect(command.pid)).rejects.toThrow("At most 64 connections may follow a command");
    await followers[0]?.disconnect();
    // The server learns of it in a moment.
    await vi.waitFor(async () => await sandbox.commands.connect(command.pid), { timeout: 20_000, interval: 100 });
    await command.kill();
    await Promise.all(followers.slice(1).map((follower) => expect(follower.wait()).rejects.toThrow(CommandExitError)));
  });

  test("end at their time, and go on where their client only lets go of them", async () => {
    await expect(sandbox.commands.run("python -c 'while True: pass'", { timeoutMs: 300 })).rejects.toThrow(
      TimeoutError,
    );
    expect((await run("echo after")).stdout).toBe("after\n");
    const left = await sandbox.commands.run("sleep 0.5; echo done > left", { background: true });
    await left.disconnect();
    await run("true");
    expect(await sandbox.files.read("left")).toBe("done\n");
  });

  test("end with their sandbox", async () => {
    const own = await server.sandbox();
    const printed = Promise.withResolvers<void>();
    const command = await own.commands.run("echo begun; python -c 'while True: pass'", {
      background: true,
      onStdout: () => printed.resolve(),
    });
    await printed.promise;
    await own.kill();
    await expect(command.wait()).rejects.toThrow("The sandbox was killed or reached its end of life");
    await expect(own.commands.run("ls")).rejects.toThrow();
  });

  test.each(["kill", "pause"] as const)(
    "that wait for their turn do not run when their sandbox ends: %s",
    async (how) => {
      const own = await server.sandbox();
      const printed = Promise.withResolvers<void>();
      const forever = "echo begun; python -c 'while True: pass'";
      const first = await own.commands.run(forever, { background: true, onStdout: () => printed.resolve() });
      await printed.promise;
      let begun = 0;
      const onStdout = () => void begun++;
      const others = await Promise.all(
        [1, 2, 3, 4].map(() => own.commands.run(forever, { background: true, onStdout })),
      );
      expect(await own.commands.list()).toHaveLength(5);
      await own[how]();
      for (const command of [first, ...others]) await expect(command.wait()).rejects.toThrow();
      expect(begun).toBe(0);
      if (how === "pause") {
        await own.connect();
        expect(await own.commands.list()).toEqual([]);
        expect((await own.commands.run("echo on")).stdout).toBe("on\n");
      }
    },
  );

  test("take no input, and there is no terminal", async () => {
    const command = await sandbox.commands.run("sleep 0.2", { background: true, stdin: true });
    await expect(sandbox.commands.sendStdin(command.pid, "x")).rejects.toThrow("Python without a shell");
    await command.wait();
    await expect(sandbox.pty.create({ cols: 80, rows: 24, onData: () => {} })).rejects.toThrow("no terminal");
  });

  test("of another principal's sandbox are not there", async () => {
    const headers = { "e2b-sandbox-id": sandbox.sandboxId, "e2b-sandbox-port": "49983" };
    const asked = { method: "POST", key: "another-key-of-bob-for-e2b", body: {}, headers };
    expect(await server.ask("/process.Process/List", asked)).toMatchObject({
      status: 502,
      body: { code: "unavailable" },
    });
  });
});
