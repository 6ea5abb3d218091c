import type { Attack, Technique } from "../attack.ts";
import type { Reply, Target } from "../target.ts";

const ALICE = "alices-own-key-here";
const MALLORY = "mallorys-own-key-here";
const ASK = [{ name: "ask" }];
/** Another's call cannot be looked up: nothing that executions share holds it. */
const NOTHING_SHARED = "each execution has an object of its own for its calls, and its sandbox reaches no other";

const post = async (target: Target, path: string, body: unknown, key = MALLORY): Promise<Reply> =>
  await target.send(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-api-key": key },
    body: JSON.stringify(body),
  });
const saying = (text: string): Reply => ({ status: 200, text, body: null });

/** Alice's code, which waits for her client. */
async function alicesExecution(target: Target, code: string) {
  const { body } = await target.run(code, { tools: ASK }, ALICE);
  const call = body.toolCalls[0].id as string;
  return {
    id: body.continuation as string,
    call,
    finish: async (result: unknown) =>
      await post(target, `/api/executions/${body.continuation}`, { results: [{ id: call, result }] }, ALICE),
  };
}

/** By requests of mallory's, who has learned an id. */
const STEALING: Attack[] = [
  {
    name: "reads what another's execution has printed, by its continuation",
    code: "",
    act: async (target, { won }) => {
      const victim = await alicesExecution(target, `print(${JSON.stringify(won)}); ask()`);
      const stolen = await post(target, `/api/executions/${victim.id}`, { results: [] });
      await victim.finish(1);
      return [stolen];
    },
  },
  {
    name: "answers another's call, by the id of its execution",
    code: "",
    act: async (target, { won }) => {
      const victim = await alicesExecution(target, "ask()");
      await post(target, `/api/executions/${victim.id}/results`, { results: [{ id: victim.call, result: won }] });
      return [await victim.finish(1), await post(target, `/api/executions/${victim.id}`, { results: [] }, ALICE)];
    },
  },
  {
    name: "answers another's call, by its continuation",
    code: "",
    act: async (target, { won }) => {
      const victim = await alicesExecution(target, "ask()");
      const results = [{ id: victim.call, result: won }];
      const stolen = await post(target, `/api/executions/${victim.id}`, { results });
      return [stolen, await victim.finish(1)];
    },
  },
];

/** By code, whose own calls no client answers. `number`: a call of alice's, which she answers meanwhile. */
const FORGING: Attack[] = [
  "value, body = device.ask_for_bytes('tool-wait', {'ids': [number], 'requests': [], 'timeoutMs': 200})\nif won.encode() in body: print(won)",
  "value, body = device.ask_for_bytes('tool-wait', {'ids': list(range(1000)), 'requests': [], 'timeoutMs': 200})\nif won.encode() in body: print(won)",
  "for name in ('tool-answer', 'tool-result', 'answer', 'results'):\n  try: device.ask(name, {'id': number, 'result': won})\n  except OSError: pass",
  'import os\nfor text in (\'{"type":"answer","call":1,"value":[]}\', \'["answer",1]\'):\n  try: os.write(4000, text.encode())\n  except OSError: pass',
  "device.ask('tool-start', {'tool': 'ask', 'input': '{}', 'id': number})",
].map((code) => ({
  name: code.replaceAll("\n", "; ").slice(0, 110),
  code,
  noControl: NOTHING_SHARED,
  act: async (target, prize) => {
    const { won } = prize;
    const victim = await alicesExecution(target, "ask() == 1 and print(1)");
    const number = Number.parseInt(victim.call.replace("call_", ""), 36);
    const before = "from sandbox_runner import device\n";
    const own = await target.run(before + code, { context: { won, number }, tools: ASK });
    const end = await victim.finish(1);
    // Alice's code has had her own answer, and no other.
    return [own, end, ...(end.body.stdout === "1\n" ? [] : [saying(won)])];
  },
}));

/** Through URLs that answer calls. The bait's port is what must not be reached. */
const REACHING: Attack[] = [
  (port: number) => `http://127.0.0.1:${port}/`,
  (port: number) => `http://127.0.0.1:${port}/other`,
  (port: number) => `http://loopback.example:${port}/`,
  (port: number) => `http://[::ffff:127.0.0.1]:${port}/`,
  (port: number) => `http://2130706433:${port}/`,
  (port: number) => `http://user@127.0.0.1:${port}/#`,
].map((urlOf) => ({
  name: `toolEndpoint ${urlOf(0).replace(":0/", ":PORT/")}`,
  code: "",
  proof: "none",
  act: async (target, { port }) => [
    await target.run("try: ask()\nexcept Exception as e: print(e)", { tools: ASK, toolEndpoint: urlOf(port) }),
  ],
}));

/** As many executions as there are sandboxes, none of which anything answers. */
const HOLDING: Attack = {
  name: "holds all sandboxes by waiting",
  code: "",
  act: async (target, { won }) => {
    const held: Reply[] = [];
    for (let i = 0; i < 3; i++) held.push(await target.run("ask()", { tools: ASK }));
    const waiting = held.filter(({ body }) => body.status === "tool_call_required");
    for (const { body } of waiting) {
      const results = [{ id: body.toolCalls[0].id, result: 1 }];
      await post(target, `/api/executions/${body.continuation}`, { results });
    }
    return waiting.length === 3 ? [saying(won)] : [];
  },
};

/** What code asks of its caller's client reaches nobody else, and answers come from nobody else. */
export const TOOLS: Technique = {
  title: "through tools of a client",
  settings: {
    POOL_SIZE: "3",
    PRINCIPAL_MAX_CONCURRENCY: "3",
    TOOL_ENDPOINTS: "http://127.0.0.1:PORT/,http://loopback.example:PORT/",
    TOOL_ENDPOINT_SECRET: "a-secret-of-the-operator",
  },
  controls: [["own-execution"], ["addresses"], ["tool-endpoints", "addresses"], ["tool-shares"]],
  attacks: [...STEALING, ...FORGING, ...REACHING, HOLDING],
};
