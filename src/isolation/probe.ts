/**
 * Runs under the wrap with every Deno permission and tries what the operating system's layers should stop.
 *
 * Arguments: a file of the host that is not made visible, a TCP port on 127.0.0.1 where the host listens, and the paths
 * that it should be able to read. Prints one line of JSON, a `ProbeAnswer`, then waits for the end of standard input so that the host can look at this process.
 */
const [hostFile = "", port = "0", ...readable] = Deno.args;

async function succeeds(attempt: () => unknown): Promise<boolean> {
  try {
    await attempt();
    return true;
  } catch {
    return false;
  }
}

const rootEntries: string[] = [];
await succeeds(() => {
  for (const entry of Deno.readDirSync("/")) rootEntries.push(entry.name);
});
const unreadable: string[] = [];
for (const path of readable) {
  const read = () => (Deno.statSync(path).isDirectory ? [...Deno.readDirSync(path)] : Deno.openSync(path).close());
  if (!(await succeeds(read))) unreadable.push(path);
}
const answer = {
  unreadable,
  rootEntries,
  readsHostFile: await succeeds(() => Deno.readFileSync(hostFile)),
  reachesHost: await succeeds(async () => (await Deno.connect({ hostname: "127.0.0.1", port: Number(port) })).close()),
  // Its input is inherited because Deno would open /dev/null otherwise, which the scratch root does not have.
  startsProcess: await succeeds(() =>
    new Deno.Command(Deno.execPath(), { args: ["--version"], stdin: "inherit" }).outputSync(),
  ),
};
console.log(JSON.stringify(answer));
await Deno.stdin.read(new Uint8Array(1));
