import child_process from "node:child_process";
import { syncBuiltinESMExports } from "node:module";

/** In the project `unit` nothing is started: such a test runs in milliseconds, on a machine that has Node and nothing else. */
const refuse = (name: string) => () => {
  throw new Error(
    `A unit test calls ${name}(). One that needs a process is called ….process.test.ts: see CONTRIBUTING.md.`,
  );
};

for (const name of ["exec", "execSync", "execFile", "execFileSync", "fork", "spawn", "spawnSync"] as const)
  child_process[name] = refuse(name) as never;
syncBuiltinESMExports();
