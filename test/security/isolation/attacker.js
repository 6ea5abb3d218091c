/**
 * Attacker's JavaScript with every permission that Deno has, as if Deno's layer had fallen. Run by `server.ts`.
 *
 * Arguments: JSON `{serverPid, port, writable, readOnly}`. Prints one line: which attacks succeeded, `{name: true | "why not"}`.
 */
const { serverPid, port, writable, readOnly } = JSON.parse(Deno.args[0]);

const attacks = {
  readPasswd: () => Deno.readTextFileSync("/etc/passwd"),
  readServerFile: () => Deno.readTextFileSync(`/proc/${serverPid}/status`),
  listRoot: () => expect([...Deno.readDirSync("/")].some(({ name }) => name === "etc")),
  listProcesses: () => expect([...Deno.readDirSync("/proc")].some(({ name }) => name === String(serverPid))),
  listTemporary: () =>
    expect([...Deno.readDirSync(`${writable}/..`)].some(({ name }) => writable.endsWith(`/${name}`))),
  connectHost: async () => (await Deno.connect({ hostname: "127.0.0.1", port })).close(),
  listen: () => Deno.listen({ port: 0, hostname: "0.0.0.0" }).close(),
  fetchHost: async () => (await fetch(`http://127.0.0.1:${port}/`)).body?.cancel(),
  startProcess: () => new Deno.Command(Deno.execPath(), { args: ["--version"], stdin: "inherit" }).outputSync(),
  startShell: () => new Deno.Command("/bin/sh", { args: ["-c", "true"], stdin: "inherit" }).outputSync(),
  signalServer: () => Deno.kill(serverPid, "SIGUSR2"),
  writeTemporary: () => Deno.writeTextFileSync(`${writable}/from-javascript`, "x"),
  makeFolder: () => Deno.mkdirSync(`${writable}/folder-from-javascript`),
  writeRoot: () =>
    tryEach(["/", "/tmp/", "/dev/shm/", "/var/tmp/", "/proc/", "/dev/"], (at) => {
      Deno.writeTextFileSync(`${at}isolation-attack`, "x");
      Deno.removeSync(`${at}isolation-attack`);
    }),
  writeReadOnly: () => Deno.writeTextFileSync(`${readOnly}/written`, "x"),
  allocateMemory: () => new WebAssembly.Memory({ initial: 40_000 }),
  loadLibrary: () => Deno.dlopen("libc.so.6", { fork: { parameters: [], result: "i32" } }).close(),
  hostName: () => expect(Deno.hostname() !== "sandbox"),
};

function expect(holds) {
  if (!holds) throw new Error("nothing of the host");
}

function tryEach(values, attempt) {
  const failures = [];
  for (const value of values) {
    try {
      return attempt(value);
    } catch (error) {
      failures.push(error);
    }
  }
  throw failures[0];
}

const outcome = {};
for (const [name, attack] of Object.entries(attacks)) {
  try {
    await attack();
    outcome[name] = true;
  } catch (error) {
    outcome[name] = String(error.message).split("\n")[0];
  }
}
console.log(JSON.stringify(outcome));
