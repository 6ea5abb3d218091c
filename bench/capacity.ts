/**
 * How many servers a million sessions need: a discrete-event simulation with the constants that `npm run bench:sessions` measures.
 *
 * Usage: `node bench/capacity.ts [name=value …]`; the names are those of `MODEL`.
 */
import { quantile } from "./settings.ts";

const MODEL = {
  sessions: 1_000_000,
  /** Share of sessions whose user is at work at the busiest hour. */
  activeShare: 0.05,
  /** Between two executions of one who is at work, s, mean. */
  thinkS: 60,
  /** CPU time of user code, ms, mean. */
  executionMs: 50,
  /** CPU time that an execution in a session adds where the sandbox still holds it: capture, compression, storing. */
  residentMs: 8,
  /** CPU time on top where it does not: rewind, read, load. */
  wakeMs: 6,
  /** Stored bytes of an idle session, its previous state included. */
  idleBytes: 130_000,
  coresPerServer: 8,
  /** A server is full at this. */
  utilisation: 0.7,
};

type Model = typeof MODEL;

const model: Model = { ...MODEL };
for (const argument of process.argv.slice(2)) {
  const [name = "", value] = argument.split("=");
  if (!(name in MODEL) || !Number.isFinite(Number(value))) throw new Error(`not a setting: ${argument}`);
  model[name as keyof Model] = Number(value);
}

const arrivalsPerS = (model.sessions * model.activeShare) / model.thinkS;
const serviceS = (model.executionMs + model.residentMs + model.wakeMs) / 1000;
const servers = Math.ceil((arrivalsPerS * serviceS) / (model.coresPerServer * model.utilisation));
const { hits, waitsMs } = simulate();
const at = (share: number) => quantile(waitsMs, share).toFixed(0);
const storeGib = (model.sessions * model.idleBytes) / 2 ** 30;

console.log(
  `${model.sessions} sessions, ${(model.activeShare * 100).toFixed(1)} % at work: ${arrivalsPerS.toFixed(0)} executions/s`,
);
console.log(`servers of ${model.coresPerServer} cores: ${servers}`);
console.log(`store: ${storeGib.toFixed(0)} GiB`);
console.log(
  `one server, simulated: found resident ${(hits * 100).toFixed(1)} %, waits p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`,
);

/** One server's share, first come first served, least recently used sessions put away; 200,000 executions. */
function simulate(): { hits: number; waitsMs: number[] } {
  const rate = arrivalsPerS / servers;
  const users = Math.ceil((model.sessions * model.activeShare) / servers);
  const freeAt = Array.from({ length: model.coresPerServer }, () => 0);
  const holds = Array.from({ length: model.coresPerServer }, () => -1);
  const waitsMs: number[] = [];
  let found = 0;
  let now = 0;
  let seed = 1;
  const random = () => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    return (seed + 0.5) / 2 ** 32;
  };
  const exponential = (mean: number) => -mean * Math.log(random());
  const executions = 200_000;
  for (let i = 0; i < executions; i++) {
    now += exponential(1000 / rate);
    const user = Math.floor(random() * users);
    const own = holds.indexOf(user);
    const isFree = own >= 0 && (freeAt[own] as number) <= now;
    const slot = isFree ? own : freeAt.indexOf(Math.min(...freeAt));
    if (isFree) found++;
    const begin = Math.max(now, freeAt[slot] as number);
    waitsMs.push(begin - now);
    freeAt[slot] = begin + exponential(model.executionMs) + model.residentMs + (isFree ? 0 : model.wakeMs);
    holds[slot] = user;
  }
  return { hits: found / executions, waitsMs };
}
