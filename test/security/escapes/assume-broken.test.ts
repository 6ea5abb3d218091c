import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { INTRUDER, withoutLayers } from "./layers.ts";
import { Mutant } from "./mutant.ts";
import { record } from "./scoreboard.ts";
import { type VisitOutcome, visit } from "./visit.ts";

/** An attacker's JavaScript runs in the sandbox process. What is outside of it must hold alone. */
const linux = process.platform === "linux";

// The first visit of each compiles the standard library and builds its image.
vi.setConfig({ testTimeout: 300_000 });

/**
 * What native code inside may do by design where only the operating system holds it: see the guest's own files, which are in
 * the package and the same for everybody, and call the C library, behind the filter on system calls.
 */
const BY_DESIGN = [
  ...["readOwnSource", "importFile", "askPermission"],
  ...["loadNative", "takeAddress", "readAddress", "makeCallback"],
];
/** Needs the filter on system calls, hence bubblewrap; see docs/isolation.md. */
const NEEDS_SECCOMP = ["listen", "startProcess", "nodeChildProcess", "hostName", "networkInterfaces"];

function harmless(outcome: VisitOutcome): void {
  expect(outcome).toMatchObject({ connections: 0, signals: 0, wrote: false, peerIsWell: true });
}

describe.each(["main", "watcher"] as const)("in the thread %s", (thread) => {
  let mutant: Mutant;
  // The realm is taken as broken as well: the attacker keeps all that the thread ever had.
  beforeAll(() => {
    mutant = new Mutant([...INTRUDER[thread], ...(thread === "main" ? withoutLayers(["realm"]) : [])]);
  });
  afterAll(() => mutant[Symbol.dispose]());

  test.each(["auto", "deno"] as const)("permissions hold, ISOLATION=%s", async (isolation) => {
    const outcome = await visit(mutant, "reaching", isolation);
    record(`assumed broken: JavaScript in the ${thread} thread`, isolation === "deno" ? "Deno alone" : "all", outcome);
    expect(Object.keys(outcome.attacks).length).toBeGreaterThan(30);
    expect(outcome.succeeded).toEqual([]);
    harmless(outcome);
  });

  test("no code is made from strings", async () => {
    const outcome = await visit(mutant, "fromStrings", "auto");
    record(`assumed broken: code from strings, ${thread} thread`, "all", outcome);
    expect(Object.keys(outcome.attacks).length).toBeGreaterThan(5);
    expect(outcome.succeeded).toEqual([]);
  });
});

describe("in the interpreter's thread", () => {
  let mutant: Mutant;
  beforeAll(() => {
    mutant = new Mutant(INTRUDER.main);
  });
  afterAll(() => mutant[Symbol.dispose]());

  test("the realm offers nothing but the language", async () => {
    const outcome = await visit(mutant, "lookingAround", "auto");
    record("assumed broken: what the realm offers", "all", outcome);
    expect(outcome.succeeded).toEqual([]);
    expect(Object.keys(outcome.attacks).length).toBeGreaterThan(30);
  });

  test("the language's objects cannot be changed for those who come after", async () => {
    const outcome = await visit(mutant, "changing", "auto");
    record("assumed broken: what changes the language", "all", outcome);
    expect(outcome.succeeded).toEqual([]);
    expect(Object.keys(outcome.attacks).length).toBeGreaterThan(20);
  });

  test("frames with a guessed nonce are refused, and end the process", async () => {
    const outcome = await visit(mutant, "forge", "auto");
    const forged = outcome.result === outcome.won ? ["result"] : [];
    record("assumed broken: forged frames", "all", { attacks: { result: "" }, succeeded: forged });
    expect(outcome.result).toBeNull();
    expect(outcome.ended).toContain("wrong nonce");
    harmless(outcome);
  });
});

describe.skipIf(!linux).each(["main", "watcher"] as const)("with every Deno permission, in the thread %s", (thread) => {
  let mutant: Mutant;
  beforeAll(() => {
    mutant = new Mutant([...INTRUDER[thread], ...withoutLayers(thread === "main" ? ["deno", "realm"] : ["deno"])]);
  });
  afterAll(() => mutant[Symbol.dispose]());

  test("the operating system holds alone", async ({ skip }) => {
    const outcome = await visit(mutant, "reaching", "auto");
    if (outcome.tool !== "bubblewrap" && outcome.tool !== "unshare") skip(`only ${outcome.tool} works here`);
    const permitted = [...BY_DESIGN, ...(outcome.tool === "bubblewrap" ? [] : NEEDS_SECCOMP)];
    const escaped = outcome.succeeded.filter((name) => !permitted.includes(name));
    record(`assumed broken: JavaScript in the ${thread} thread`, "operating system alone", {
      ...outcome,
      succeeded: escaped,
    });
    expect(escaped).toEqual([]);
    harmless(outcome);
  });

  test("without the operating system's layers nothing holds, so these tests can fail", async () => {
    const outcome = await visit(mutant, "reaching", "deno");
    record(`assumed broken: JavaScript in the ${thread} thread`, "none (control)", outcome);
    const expected = [
      "readSecret",
      "openServerMemory",
      "openPeerMemory",
      "writeFile",
      "connect",
      "startProcess",
      "signalServer",
      "loadNative",
      "readAddress",
      "makeCallback",
    ];
    expect(outcome.succeeded).toEqual(expect.arrayContaining(expected));
    expect(outcome).toMatchObject({ wrote: true, peerIsWell: false });
    expect(outcome.connections).toBeGreaterThan(0);
    expect(outcome.signals).toBeGreaterThan(0);
  });
});
