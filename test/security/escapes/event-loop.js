/**
 * Loaded into the server under attack: tells the test, when it asks, the longest turn of the event loop since it asked last.
 *
 * Processor time of the server's thread, not time on the clock: on a machine that is busy otherwise a turn takes as long as others let it.
 * And in ms of the machine that the bound is stated for: where a fixed piece of work takes longer than there, each ms counts for less.
 */
const BEAT_MS = 5;
const usedMs = () => {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
};

/** What {@link work} takes on that machine, ms. */
const WORK_MS = 60;

/** Texts, sets and sorting, as what a turn of the server is made of; more than once, so that most of it is done by compiled code. */
function work() {
  const before = usedMs();
  for (let round = 0; round < 20; round++) {
    const seen = new Set();
    for (let i = 0; i < 15_000; i++) seen.add(`site-packages/${i * 7919}/x.py`.slice(0, -1));
    if ([...seen].toSorted().length !== 15_000) throw new Error("not the work");
  }
  return usedMs() - before;
}

const slowness = Math.max(1, work() / WORK_MS);

let before = usedMs();
let longestMs = 0;
setInterval(() => {
  const now = usedMs();
  longestMs = Math.max(longestMs, (now - before) / slowness);
  before = now;
}, BEAT_MS).unref();

process.on("message", (message) => {
  if (message !== "longest turn") return;
  process.send({ longestTurnMs: longestMs });
  longestMs = 0;
});
process.channel?.unref();
