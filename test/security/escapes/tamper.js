/**
 * Changes what a sandbox process says, as if user code had come out of WebAssembly and knew everything: right nonces, right times,
 * one wrong field. `mutant.ts` puts it there.
 *
 * A plan: `{type, part?, size?, path, json?, remove?}`. `part` is the part of the frame's body that holds JSON, `size` the field of
 * the header that tells its length; without them the header itself is changed. `json` is the new value's text.
 */
// The realm has less once it is closed.
const [encoder, decoder] = [new TextEncoder(), new TextDecoder()];
let plan = null;
try {
  // For what is said before any code runs.
  plan = JSON.parse(Deno.readTextFileSync(new URL("tamper.json", import.meta.url)));
} catch {
  // There is none.
}

/** What would make the code longer than code may be. */
const LARGE = { text: () => `"${"x".repeat(3 * 2 ** 20)}"`, values: () => `[${"0,".repeat(200_000)}0]` };

export function arm(code) {
  const [, json] = /^#TAMPER (.*)$/m.exec(code) ?? [];
  plan = json === undefined ? null : JSON.parse(json);
}

export function tampered(message, body) {
  if (plan === null || message.type !== plan.type) return [message, ...body];
  const { part, size } = plan;
  if (part === undefined) return [changed(message), ...body];
  const parts = [...body];
  if (parts[part] === undefined) return [message, ...body];
  const value = JSON.parse(decoder.decode(parts[part]));
  parts[part] = encoder.encode(JSON.stringify(changed(value)));
  return [size === undefined ? message : { ...message, [size]: parts[part].length }, ...parts];
}

function changed(value) {
  const copy = JSON.parse(JSON.stringify(value));
  const { path, large, remove } = plan;
  const json = large === undefined ? (plan.json ?? "null") : LARGE[large]();
  const value_ = () => JSON.rawJSON(json);
  if (path.length === 0) return compound(json) ?? value_();
  let place = copy;
  for (const key of path.slice(0, -1)) place = place?.[key];
  if (typeof place !== "object" || place === null) return copy;
  const last = path.at(-1);
  if (remove) delete place[last];
  else place[last] = compound(json) ?? value_();
  return copy;
}

/** `rawJSON` takes scalars alone, and is what has numbers that JavaScript has not. */
function compound(json) {
  return /^[[{]/.test(json) ? JSON.parse(json) : undefined;
}
