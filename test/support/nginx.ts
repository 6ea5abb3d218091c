import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { isInstalled } from "./installed.ts";
import { runProxy, type TestProxy } from "./proxy.ts";
import { freePort } from "./redis.ts";

const DEPLOYED = fileURLToPath(new URL("../../deploy/nginx.conf", import.meta.url));

export const hasNginx = isInstalled("nginx", "-v");

/**
 * nginx with the file that is deployed, as it is but for its addresses.
 *
 * @param servers `127.0.0.1:40001` for each server that the file names.
 */
export async function startNginx(servers: Readonly<Record<string, string>>): Promise<TestProxy> {
  const port = await freePort();
  let text = replaced(readFileSync(DEPLOYED, "utf8"), "listen 8080;", `listen 127.0.0.1:${port};`);
  for (const [name, address] of Object.entries(servers))
    text = replaced(text, `server ${name}:3000 `, `server ${address} `);
  return await runNginx(text, `http://127.0.0.1:${port}`, "/health");
}

/**
 * nginx with what a file of `conf.d` has, until the test ends it.
 *
 * @param url where it listens. @param probe a path on which a server behind it answers.
 */
export async function runNginx(text: string, url: string, probe: string): Promise<TestProxy> {
  const folder = temporaryFolder("nginx");
  writeFileSync(path.join(folder, "default.conf"), text);
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  // As the container's own file includes it.
  const main = `
    daemon off;
    master_process off;
    pid ${folder}/pid;
    events {}
    http {
      access_log off;
      ${temporary.map((name) => `${name}_temp_path ${folder}/${name};`).join("\n")}
      include ${folder}/default.conf;
    }`;
  const file = path.join(folder, "nginx.conf");
  writeFileSync(file, main);
  return await runProxy({ command: ["nginx", "-p", folder, "-c", file, "-e", "stderr"], url, probe, endBy: "SIGTERM" });
}

function replaced(text: string, what: string, by: string): string {
  if (!text.includes(what)) throw new Error(`deploy/nginx.conf has no ${JSON.stringify(what)}`);
  return text.replace(what, by);
}
