import { execFileSync } from "node:child_process";

/** Whether this machine has a program; tests that need it say that they are skipped. @param parameters with which it ends at once. */
export function isInstalled(program: string, ...parameters: string[]): boolean {
  try {
    execFileSync(program, parameters, { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
