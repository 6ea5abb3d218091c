import { HOME, resolvedPath } from "../../workspaces/paths.ts";

/** What E2B calls the home folder; here it is a link to it, for code too. */
export const E2B_HOME = "/home/user";
/** Root's, as which E2B's clients run what needs its rights: there are no users here. */
const HOMES = [E2B_HOME, "/root", "/mnt/data"];

/** A path of E2B's clients as the sandbox has it: absolute, in the home folder if it says nothing else. @throws {ClientError} 400 `invalid_path`. */
export function toOwn(path: string): string {
  const resolved = resolvedPath(E2B_HOME, path.replace(/^~(?=\/|$)/, E2B_HOME));
  const home = HOMES.find((candidate) => `${resolved}/`.startsWith(`${candidate}/`));
  return home === undefined ? resolved : HOME + resolved.slice(home.length);
}

/** A path of the sandbox as E2B's clients know it. */
export function toE2b(path: string): string {
  return `${path}/`.startsWith(`${HOME}/`) ? E2B_HOME + path.slice(HOME.length) : path;
}
