import { readFileSync } from "node:fs";

/** Reads what Redis runs in one go, once, when the server starts. */
export function luaScript(file: URL): string {
  return readFileSync(file, "utf8");
}
