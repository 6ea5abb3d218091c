/**
 * Loaded into the server under attack: tells the test, when it asks, the longest turn of the event loop since it asked last.
 *
 * Processor time of the server's thread, not time on the clock: on a machine that is busy otherwise a turn takes as long as others let it.
 */
const BEAT_MS = 5;
const usedMs = () => {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
};

let before = usedMs();
let longestMs = 0;
setInterval(() => {
  const now = usedMs();
  longestMs = Math.max(longestMs, now - before);
  before = now;
}, BEAT_MS).unref();

process.on("message", (message) => {
  if (message !== "longest turn") return;
  process.send({ longestTurnMs: longestMs });
  longestMs = 0;
});
process.channel?.unref();
