/**
 * Loaded into the server before anything else: names that attacks use are answered here and asked of nobody.
 */
import dns from "node:dns";
import { syncBuiltinESMExports } from "node:module";

/** A public address that nobody was ever given: a connection to it goes nowhere. */
const NOWHERE = { address: "2d00::1", family: 6 };
const v4 = (address) => ({ address, family: 4 });
const ANSWERS = {
  "127.0.0.1.nip.io": [v4("127.0.0.1")],
  "localtest.me": [v4("127.0.0.1")],
  "private.example": [v4("10.0.0.1")],
  "loopback.example": [v4("127.0.0.1")],
  "mapped.example": [{ address: "::ffff:127.0.0.1", family: 6 }],
  "both.example": [NOWHERE, v4("127.0.0.1")],
  "metadata.google.internal": [v4("169.254.169.254")],
  "metadata.example": [v4("169.254.169.254")],
};
let asked = 0;

function answer(name) {
  // Public when it is checked, the host's own when it is connected to: DNS rebinding.
  if (name.endsWith("rebind.example")) return asked++ % 2 === 0 ? [NOWHERE] : [v4("127.0.0.1")];
  return ANSWERS[name] ?? (name.endsWith(".example") ? [v4("127.0.0.1")] : undefined);
}

const { lookup } = dns;
dns.lookup = (name, options, callback = options) => {
  const found = answer(name);
  if (found === undefined) return lookup(name, options, callback);
  const [{ address, family }] = found;
  return options.all ? callback(null, found) : callback(null, address, family);
};
const later = dns.promises.lookup;
dns.promises.lookup = async (name, options) => {
  const found = answer(name);
  if (found === undefined) return await later(name, options);
  return options?.all ? found : found[0];
};
/** One resolver is one look-up: both of its questions have the same answer. */
const answers = new WeakMap();
for (const [method, family] of [
  ["resolve4", 4],
  ["resolve6", 6],
]) {
  const ask = dns.promises.Resolver.prototype[method];
  dns.promises.Resolver.prototype[method] = async function (name) {
    if (!answers.has(this)) answers.set(this, answer(name));
    const found = answers.get(this);
    if (found === undefined) return await ask.call(this, name);
    const own = found.filter((address) => address.family === family);
    if (own.length === 0) throw Object.assign(new Error("no such record"), { code: "ENODATA" });
    return own.map(({ address }) => address);
  };
}
syncBuiltinESMExports();
