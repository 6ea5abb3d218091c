import { expect, test } from "vitest";
import { FairTurns } from "./fair-turns.ts";

test("what is given up while it waits never begins, what begins takes turns by principal, and no place is lost", async () => {
  const turns = new FairTurns(2);
  const begun: string[] = [];
  const gate = Promise.withResolvers<void>();
  const given = new AbortController();
  const run = (name: string, signal?: AbortSignal) =>
    turns.run(
      name[0] as string,
      async () => {
        begun.push(name);
        await gate.promise;
        if (name === "a2") throw new Error("failed");
      },
      signal,
    );
  const runs = [run("a1"), run("a2"), run("a3"), run("a4", given.signal), run("a5"), run("b1")];
  expect(begun).toEqual(["a1", "a2"]);
  given.abort(new Error("gone"));
  await expect(run("c1", given.signal)).rejects.toThrow("gone");
  gate.resolve();
  const ends = await Promise.allSettled(runs);
  expect(ends.map((end) => (end.status === "rejected" ? end.reason.message : null))).toEqual([
    null,
    "failed",
    null,
    "gone",
    null,
    null,
  ]);
  expect(begun).toEqual(["a1", "a2", "a3", "b1", "a5"]);
  const again = Promise.all([run("d1"), run("d2")]);
  expect(begun.slice(-2)).toEqual(["d1", "d2"]);
  await again;
});
