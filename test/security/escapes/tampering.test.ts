import { rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { z } from "zod";
import { errorInfo, fileChanges, guestMessage } from "../../../src/wire/guest-messages.ts";
import { TAMPERING, withoutLayers } from "./layers.ts";
import { Mutant } from "./mutant.ts";
import { write } from "./scoreboard.ts";
import { Target } from "./target.ts";

/** `npm run test:escapes` tries all; within `npm test` there is time for a sample. */
const STEP = process.env.ESCAPES_ALL === "1" ? 1 : 67;

interface Field {
  readonly type: string;
  readonly part?: number;
  readonly size?: string;
  readonly path: readonly (string | number)[];
}

const fields = (rest: Omit<Field, "path">, ...paths: readonly (readonly (string | number)[])[]): Field[] =>
  paths.map((path) => ({ ...rest, path }));

/** Where the fields of a message stand, found in its schema: one that is new is changed as well. The first of a list stands for all. */
function pathsOf(schema: z.core.$ZodType, at: readonly (string | number)[] = []): readonly (string | number)[][] {
  const { def } = schema._zod;
  if (def.type === "object") {
    const { shape } = def as z.core.$ZodObjectDef;
    const inner = Object.entries(shape).flatMap(([name, member]) => pathsOf(member, [...at, name]));
    return [[...at], ...inner, [...at, "unknown"]];
  }
  if (def.type === "array") return [[...at], ...pathsOf((def as z.core.$ZodArrayDef).element, [...at, 0])];
  if (def.type === "union")
    return (def as z.core.$ZodUnionDef).options.flatMap((option) => pathsOf(option as z.core.$ZodType, at));
  if ("innerType" in def) return pathsOf(def.innerType as z.core.$ZodType, at);
  return [[...at]];
}

const distinct = (paths: readonly (string | number)[][]) => [
  ...new Map(paths.map((path) => [JSON.stringify(path), path])).values(),
];

/** What a process says before it is ready, in place of being it, or when an image is built. */
const NOT_IN_A_JOB = ["ready", "image", "fatal"];
const MESSAGES = guestMessage.options.map((option) => {
  const { shape } = option as unknown as { shape: { type: { value: string } } };
  return { type: shape.type.value, schema: option as z.core.$ZodType };
});

/** Every field of every message that a process sends once it is ready, those inside bodies too. */
const FIELDS: readonly Field[] = [
  ...MESSAGES.filter(({ type }) => !NOT_IN_A_JOB.includes(type)).flatMap(({ type, schema }) =>
    fields({ type }, ...distinct(pathsOf(schema).filter(({ length }) => length > 0))),
  ),
  ...fields({ type: "result", part: 0, size: "errorBytes" }, ...pathsOf(errorInfo), ["status"]),
  ...fields({ type: "result", part: 1, size: "valueBytes" }, []),
  ...fields({ type: "result", part: 4, size: "changesBytes" }, ...pathsOf(fileChanges)),
  ...fields({ type: "display", part: 0 }, [], ["text/plain"], ["__proto__"]),
  ...fields({ type: "display", part: 1, size: "metadataBytes" }, [], ["text/plain"], ["__proto__"]),
  ...fields({ type: "call", part: 0 }, []),
];

const VALUES: Readonly<Record<string, string>> = {
  null: "null",
  true: "true",
  "a text": '"x"',
  "an empty text": '""',
  "-1": "-1",
  "0.5": "0.5",
  "2 ** 53": "9007199254740992",
  "1e300": "1e300",
  infinite: "1e999",
  "a list": "[]",
  "a list of lists": "[[[[[]]]]]",
  "an object": "{}",
  "an object with names of its own": '{"then":1,"toJSON":1,"constructor":1,"length":1}',
  "300 levels": "[".repeat(300) + "]".repeat(300),
};

interface Case {
  readonly name: string;
  readonly plan: object;
}

const CASES: readonly Case[] = FIELDS.flatMap((field) => {
  const where = `${field.type}${field.part === undefined ? "" : ` (body ${field.part})`}: ${field.path.join(".") || "all"}`;
  return [
    { name: `${where} missing`, plan: { ...field, remove: true } },
    { name: `${where} is a large text`, plan: { ...field, large: "text" } },
    { name: `${where} has many values`, plan: { ...field, large: "values" } },
    ...Object.entries(VALUES).map(([name, json]) => ({ name: `${where} is ${name}`, plan: { ...field, json } })),
  ];
});

/** Comes by every kind of message. */
const PROGRAM = `
import os
os.makedirs('/tmp/d', exist_ok=True)
open('/tmp/d/f', 'w').write('x')
try: os.symlink('/tmp/d/f', '/tmp/l')
except OSError: pass
try: os.remove('/tmp/old')
except OSError: pass
import mmap
mapped = open('/tmp/d/mapped', 'wb+')
mapped.write(bytes(65536))
mapped.flush()
mapping = mmap.mmap(mapped.fileno(), 65536)
unnamed = open('/tmp/d/unnamed', 'w+')
os.remove('/tmp/d/unnamed')
listed = os.scandir('/tmp/d')
next(listed)
print('x')
shown = display('y', display_id='x', metadata={'text/plain': {'a': 1}})
shown.update('z')
__import__('IPython.display').display.clear_output(wait=True)
try: os.write(4000, b'["nonsense", {"a": [1]}]')
except OSError: pass
6 * 7
`;

let mutant: Mutant;
let target: Target;
beforeAll(async () => {
  mutant = new Mutant(TAMPERING);
  target = await Target.start({ source: mutant.folder, settings: { CACHE_DIR: mutant.cacheDir, POOL_SIZE: "2" } });
  await target.rememberNormal();
}, 120_000);
afterAll(async () => {
  await target?.stop();
  mutant?.[Symbol.dispose]();
});

/** One field wrong: in a stateless execution, a stream, and a session. @returns what is wrong with the server after it. */
async function tamper({ plan }: Case, on: Target): Promise<string | null> {
  const { type, size } = plan as Field;
  // What is changed in an error has to be there.
  const end = size === "errorBytes" ? "raise ValueError('x')" : "";
  const code = `#TAMPER ${JSON.stringify(plan)}\n${PROGRAM}${end}`;
  const ways =
    type === "state" ? ["session"] : type === "printed" || type === "output" ? ["stream"] : ["plain", "session"];
  for (const way of ways) {
    if (way === "session") {
      const made = await on.send("/api/sessions", { method: "POST" });
      const session: string = made.body.session.id;
      await on.run(`open('/tmp/old', 'w')`, { session, files: undefined });
      const { status, text } = await on.run(code, { session, files: undefined });
      if (status >= 500) return `${way}: ${status} ${text.slice(0, 200)}`;
      await on.send(`/api/sessions/${session}`, { method: "DELETE" });
    } else {
      const where = way === "stream" ? "/api/execute-stream" : "/api/execute";
      const body = JSON.stringify({ code, timeout: 10_000, display: true });
      const reply = await on.send(where, { method: "POST", headers: { "content-type": "application/json" }, body });
      if (reply.status !== 200) return `${way}: ${reply.status} ${reply.text.slice(0, 200)}`;
    }
  }
  const other = await on.run("40 + 2", {}, "alices-own-key-here");
  if (other.body.result !== 42) return `another principal gets ${other.text.slice(0, 200)}`;
  if (/unhandled|uncaught/i.test(on.said)) return on.said.slice(-500);
  return null;
}

test.each(CASES.filter((_, index) => index % STEP === 0))("$name", async (each) => {
  expect(await tamper(each, target)).toBeNull();
});

test("every kind of message comes by, so that there is something to change", async () => {
  const { text } = await target.send("/api/execute-stream", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ code: PROGRAM }),
  });
  for (const part of ['"stdout"', '"output"', '"completed"']) expect(text).toContain(part);
  // What is printed is sent by the other thread, too, which does not know of the plan.
  for (const type of ["result", "idle", "display", "clear_output", "call", "printed"]) {
    const plan = { type, path: ["type"], json: '"nonsense"' };
    const code = `#TAMPER ${JSON.stringify(plan)}\n${PROGRAM}`;
    const reply = await target.send("/api/execute-stream", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ code }),
    });
    // An answer that came before what was changed is an answer.
    if (type !== "idle") expect([type, /"status":"(\w+)"/.exec(reply.text)?.[1]]).toEqual([type, "sandbox_died"]);
  }
});

test("the log has every execution, in one unbroken chain", async () => {
  await target.checkLogs();
  expect(await target.longestTurnMs()).toBeLessThan(50);
  write({
    technique: "assumed broken: one field of a message wrong",
    layers: "all",
    tried: CASES.length,
    succeeded: 0,
  });
});

test("a wrong `ready` fails that start alone; the next is well", { timeout: 120_000 }, async () => {
  const file = path.join(mutant.folder, "src/guest/tamper.json");
  const names = ["type", "pythonVersion", "pyodideVersion", "heapBytes", "everyPage", "checkpoint", "unknown"];
  for (const name of names.slice(0, STEP === 1 ? names.length : 3)) {
    writeFileSync(file, JSON.stringify({ type: "ready", path: [name], json: "[]" }));
    await target.run("import os; os.abort()");
    rmSync(file);
    // Those that were told so wait for it, or hear that it does not start.
    for (;;) {
      const { status, body } = await target.run("40 + 2", {}, "alices-own-key-here");
      if (status === 200 && body.success) break;
      expect([200, 503]).toContain(status);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    expect(target.said).not.toMatch(/unhandled|uncaught/i);
  }
});

/** `npm run test:escapes -- --mutations`: it waits for what never comes. */
const wanted = process.env.ESCAPES_MUTATIONS === "1";
test.skipIf(!wanted)(
  "without the schema some of it is believed, so these tests can fail",
  { timeout: 240_000 },
  async () => {
    using open = new Mutant([...TAMPERING, ...withoutLayers(["message-schema"])]);
    const on = await Target.start({ source: open.folder, settings: { CACHE_DIR: open.cacheDir, POOL_SIZE: "1" } });
    try {
      await on.rememberNormal();
      const plans = [
        { type: "idle", path: ["verdict"], json: "null" },
        { type: "result", path: ["executionTimeMs"], json: '"x"' },
      ];
      const limit = AbortSignal.timeout(100_000);
      const late = new Promise<string>((resolve) => limit.addEventListener("abort", () => resolve("nobody is served")));
      const outcomes: (string | null)[] = [];
      for (const plan of plans) {
        const outcome = tamper({ name: "", plan }, on).catch((error: unknown) => `the server is gone: ${error}`);
        outcomes.push(await Promise.race([outcome, late]));
      }
      const lines = on.logLines().map(({ details }) => (details as { executionTime?: unknown }).executionTime);
      expect(outcomes.some((outcome) => outcome !== null) || lines.includes(null), on.said).toBe(true);
    } finally {
      await on.stop("SIGKILL");
    }
  },
);
