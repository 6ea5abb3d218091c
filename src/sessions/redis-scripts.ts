import { luaScript } from "../shared/lua-script.ts";

const script = (name: string) => luaScript(new URL(`redis/${name}.lua`, import.meta.url));

const USAGE = script("usage");
const COMMIT = USAGE + script("commit");
// allow-oom: leases and deletes must work at maxmemory, or space could never be freed.
const WHEN_FULL = "#!lua flags=allow-oom\n";

/**
 * What Redis does in one go: each file says which keys and arguments it has. A script that is sent again because its answer was lost
 * comes to the same.
 *
 * Numbers that are compared stay text or come from Redis itself; times are ms since 1970.
 */
export const SCRIPTS = {
  create: USAGE + script("create"),
  acquire: WHEN_FULL + script("acquire"),
  renew: WHEN_FULL + script("renew"),
  release: script("release"),
  commit: COMMIT,
  /** The same, allowed also where Redis is full: only for changes after which there is less. */
  commitDeletion: WHEN_FULL + COMMIT,
  delete: WHEN_FULL + script("delete"),
} as const;
