import { expect, test } from "vitest";
import { TaskThread, type TaskThreadOptions } from "./task-thread.ts";

type Task = "count" | "end" | "hang" | Uint8Array;

/** Answers how many tasks it had, or a task's length. */
const PROGRAM = `
import { parentPort } from "node:worker_threads";
let tasks = 0;
parentPort.on("message", (task) => {
  tasks++;
  if (task === "end") process.exit();
  while (task === "hang");
  parentPort.postMessage(task === "count" ? tasks : task.length);
});`;

/** Asks a new thread to do a task. */
function newThread(options: Partial<TaskThreadOptions> = {}): TaskThread<Task, number>["run"] {
  const program = new URL(`data:text/javascript,${encodeURIComponent(PROGRAM)}`);
  const thread = new TaskThread<Task, number>({ program, lost: () => new Error("lost"), ...options });
  return (...task) => thread.run(...task);
}

test("does tasks in one thread, those of one principal in the order in which they were asked for, and takes over what they bring", async () => {
  const run = newThread();
  const bytes = new Uint8Array(7);
  expect(
    await Promise.all([run("count"), run("count"), run(bytes, { transfer: [bytes.buffer] }), run("count")]),
  ).toEqual([1, 2, 7, 4]);
  expect(bytes.length).toBe(0);
});

test("takes turns by principal: one who asks for many delays another by one", async () => {
  const run = newThread();
  const done: string[] = [];
  const ask = async (principal: string) => {
    await run("count", { principal });
    done.push(principal);
  };
  await Promise.all([...Array<string>(5).fill("alice"), "bob", "bob"].map(ask));
  expect(done).toEqual(["alice", "alice", "bob", "alice", "bob", "alice", "alice"]);
});

test("a task that ends the thread fails alone: those that wait have another thread", async () => {
  const run = newThread();
  const settled = await Promise.allSettled([run("count"), run("end"), run("count"), run("count")]);
  expect(settled.map((task) => (task.status === "fulfilled" ? task.value : task.reason.message))).toEqual([
    1,
    "lost",
    1,
    2,
  ]);
});

test("so does one that takes too long", async () => {
  const run = newThread({ timeoutMs: 3000 });
  const settled = await Promise.allSettled([run("hang"), run("count")]);
  expect(settled).toMatchObject([{ status: "rejected", reason: { message: "lost" } }, { value: 1 }]);
});

test("what cannot be sent fails, and the next task does not", async () => {
  const run = newThread();
  await expect(run((() => {}) as unknown as Task)).rejects.toThrow(/could not be cloned/);
  expect(await run("count")).toBe(1);
});

test("ends when it has had nothing to do for a while, and begins anew", async () => {
  const run = newThread({ idleMs: 1 });
  expect(await run("count")).toBe(1);
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(await run("count")).toBe(1);
});
