import type { Attack, Technique } from "../attack.ts";
import type { Target } from "../target.ts";

/** Draws that must not be foreseen from an execution of one's own. */
const DRAWS: Readonly<Record<string, string>> = {
  random: "import random\nrandom.random()",
  "random, seeded from the clock": "import random, time\nrandom.seed()\nrandom.random()",
  "the first choice": "import random\n''.join(random.choices('abcdefgh', k=40))",
  secrets: "import secrets\nsecrets.token_hex()",
  "os.urandom": "import os\nos.urandom(16).hex()",
  uuid4: "import uuid\nstr(uuid.uuid4())",
  uuid1: "import uuid\nstr(uuid.uuid1())",
  "a temporary file's name": "import tempfile\ntempfile.mktemp()",
  "/dev/urandom": "open('/dev/urandom', 'rb').read(16).hex()",
  SystemRandom: "import random\nrandom.SystemRandom().random()",
  "a boundary of e-mail": "import email.generator\nemail.generator._make_boundary()",
};

const sessionOf = async (target: Target, key: string): Promise<string> =>
  (await target.send("/api/sessions", { method: "POST", headers: { "x-api-key": key } })).body.session.id;

/** Where `draw` is made: executions of both principals, and sessions' first. */
async function draws(target: Target, code: string): Promise<unknown[]> {
  const results: unknown[] = [];
  for (let i = 0; i < 4; i++) {
    for (const key of ["mallorys-own-key-here", "alices-own-key-here"])
      results.push((await target.run(code, {}, key)).body.result);
  }
  const own = await sessionOf(target, "mallorys-own-key-here");
  const others = await sessionOf(target, "alices-own-key-here");
  await target.run("x = 1", { session: own });
  const fork = (await target.send(`/api/sessions/${own}/fork`, { method: "POST" })).body.session.id;
  for (const session of [own, fork]) results.push((await target.run(code, { session })).body.result);
  results.push((await target.run(code, { session: others }, "alices-own-key-here")).body.result);
  for (const id of [own, fork]) await target.send(`/api/sessions/${id}`, { method: "DELETE" });
  await target.send(`/api/sessions/${others}`, { method: "DELETE", headers: { "x-api-key": "alices-own-key-here" } });
  return results;
}

/** Two executions, sessions or forks never draw the same. (`hash()` of texts is the same by design: SECURITY.md.) */
export const CHANCE: Technique = {
  title: "random numbers foreseen",
  controls: [["reseed"], ["reseed", "entropy"]],
  attacks: Object.entries(DRAWS).map(
    ([name, code]): Attack => ({
      name,
      code: "",
      ...(name === "uuid1" && { noControl: "it has the time in it" }),
      act: async (target, { won }) => {
        const results = await draws(target, code);
        const isRepeated = new Set(results).size < results.length || results.includes(null);
        return isRepeated ? [{ status: 200, text: `${won} ${JSON.stringify(results)}`, body: null }] : [];
      },
    }),
  ),
};
