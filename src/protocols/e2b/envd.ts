import { z } from "zod";
import { endpoint, json, type ProtocolEndpoint } from "../../http/protocol.ts";
import { sendFile } from "../../http/resources/file-collection.ts";
import type { Asked } from "../../http/routes.ts";
import { ClientError } from "../../shared/errors.ts";
import { nameOf } from "../../workspaces/paths.ts";
import { addressOf, ENVD_PORT, INTERPRETER_PORT } from "./address.ts";
import { streaming, unary } from "./connect.ts";
import { metricsOf } from "./descriptions.ts";
import { SandboxFiles, type UploadedFile } from "./filesystem.ts";
import { toOwn } from "./paths.ts";
import type { Sandbox, Sandboxes } from "./sandboxes.ts";
import { type Upload, uploadBody } from "./uploads.ts";
import { SandboxView, type Watchers, watchDir } from "./watchers.ts";

const MAX_DEPTH = 100;
const FILES = ["execute", "files"] as const;
const USERS: ReadonlySet<string> = new Set(["", "user", "root"]);

const path = z.string("path must be a string.").default("");
const watched = z.object({ path, recursive: z.boolean().default(false) });
const watcher = z.object({ watcherId: z.string("watcherId must be a string.") });

type AskedOfSandbox = Asked<unknown, unknown, unknown>;

/** What is at port 49983 of a sandbox: E2B's daemon, but for processes. */
export function envd(sandboxes: Sandboxes, watchers: Watchers): readonly ProtocolEndpoint[] {
  return [
    endpoint({
      method: "get",
      path: "/health",
      scope: "execute",
      handler: async ({ request, response, principal }) => {
        const { id, port } = addressOf(request) ?? { id: "", port: 0 };
        await sandboxes.running(principal.id, id);
        if (port === INTERPRETER_PORT) response.json("OK");
        else if (port === ENVD_PORT) response.status(204).end();
        else throw new ClientError("endpoint_not_found");
      },
    }),

    endpoint({
      method: "get",
      path: "/metrics",
      scope: "execute",
      reply: json(),
      handler: async (asked) => {
        const metrics = metricsOf(await ofSandbox(sandboxes, asked), asked.services.config);
        return {
          ts: metrics.timestampUnix,
          cpu_count: metrics.cpuCount,
          cpu_used_pct: metrics.cpuUsedPct,
          mem_total: metrics.memTotal,
          mem_used: metrics.memUsed,
          mem_cache: metrics.memCache,
          disk_used: metrics.diskUsed,
          disk_total: metrics.diskTotal,
        };
      },
    }),

    endpoint({
      method: "get",
      path: "/envs",
      scope: "execute",
      reply: json(),
      handler: async (asked) => (await ofSandbox(sandboxes, asked)).state.envVars,
    }),

    endpoint({
      method: "get",
      path: "/files",
      scope: FILES,
      handler: async (asked) => {
        const asks = queryOf(asked);
        const files = await filesOf(sandboxes, asked);
        await sendFile(asked.response, nameOf(toOwn(asks.path)), (onSize) => files.read(asks.path, onSize));
      },
    }),

    endpoint({
      method: "post",
      path: "/files",
      scope: FILES,
      body: uploadBody,
      reply: json(),
      handler: async (asked) => {
        const { signal, record } = asked;
        const files = await filesOf(sandboxes, asked);
        const written = await files.write(filesIn(asked), signal);
        for (const { path } of written) record("file_write", { path: toOwn(path) });
        return written;
      },
    }),

    unary("filesystem.Filesystem/Stat", FILES, z.object({ path }), async (asked) => ({
      entry: await (await filesOf(sandboxes, asked)).stat(asked.body.path),
    })),

    unary(
      "filesystem.Filesystem/ListDir",
      FILES,
      z.object({ path, depth: z.int().min(0).max(MAX_DEPTH, `depth must be at most ${MAX_DEPTH}.`).default(1) }),
      async (asked) => ({
        entries: await (await filesOf(sandboxes, asked)).list(asked.body.path, Math.max(1, asked.body.depth)),
      }),
    ),

    unary("filesystem.Filesystem/MakeDir", FILES, z.object({ path }), async (asked) => ({
      entry: await (await filesOf(sandboxes, asked)).makeFolder(asked.body.path, asked.signal),
    })),

    unary("filesystem.Filesystem/Move", FILES, z.object({ source: path, destination: path }), async (asked) => {
      const { source, destination } = asked.body;
      return { entry: await (await filesOf(sandboxes, asked)).move(source, destination, asked.signal) };
    }),

    unary("filesystem.Filesystem/Remove", FILES, z.object({ path }), async (asked) => {
      await (await filesOf(sandboxes, asked)).remove(asked.body.path, asked.signal);
      asked.record("file_delete", { path: toOwn(asked.body.path) });
      return {};
    }),

    unary("filesystem.Filesystem/CreateWatcher", FILES, watched, async (asked) => {
      const view = await viewOf(sandboxes, watchers, asked);
      return { watcherId: await watchers.open(asked.principal.id, idOf(asked), view, asked.body) };
    }),

    unary("filesystem.Filesystem/GetWatcherEvents", FILES, watcher, async (asked) => {
      await ofSandbox(sandboxes, asked);
      return { events: await watchers.events(asked.principal.id, idOf(asked), asked.body.watcherId) };
    }),

    unary("filesystem.Filesystem/RemoveWatcher", FILES, watcher, async (asked) => {
      watchers.close(asked.principal.id, idOf(asked), asked.body.watcherId);
      return {};
    }),

    streaming("filesystem.Filesystem/WatchDir", FILES, watched, async (asked, stream) => {
      const view = await viewOf(sandboxes, watchers, asked);
      await watchDir(watchers, { principal: asked.principal.id, view, ...asked.body }, stream, asked);
    }),
  ];
}

/** The sandbox that a request for the daemon is for. @throws {ClientError} 502 */
export async function ofSandbox(sandboxes: Sandboxes, asked: AskedOfSandbox): Promise<Sandbox> {
  checkUser(asked);
  return await sandboxes.running(asked.principal.id, idOf(asked));
}

/** @throws {ClientError} where it is for another part of the sandbox. */
export function idOf({ request }: Pick<AskedOfSandbox, "request">): string {
  const address = addressOf(request);
  if (address?.port !== ENVD_PORT) throw new ClientError("endpoint_not_found");
  return address.id;
}

async function filesOf(sandboxes: Sandboxes, asked: AskedOfSandbox): Promise<SandboxFiles> {
  const { record } = await ofSandbox(sandboxes, asked);
  return new SandboxFiles(asked.services, asked.principal.id, record.id);
}

async function viewOf(sandboxes: Sandboxes, watchers: Watchers, asked: AskedOfSandbox): Promise<SandboxView> {
  const files = await filesOf(sandboxes, asked);
  const [principal, id] = [asked.principal.id, idOf(asked)];
  const versionOf = async () => (await sandboxes.running(principal, id)).record.head?.sha256 ?? "";
  return watchers.view(principal, id, () => new SandboxView(versionOf, () => files.entries()));
}

/** There are no users: a name that E2B's sandboxes do not have is refused as there. */
function checkUser({ request }: AskedOfSandbox): void {
  const basic = /^Basic +(\S+)$/i.exec(request.get("authorization") ?? "")?.[1];
  const named = basic === undefined ? request.query.username : Buffer.from(basic, "base64").toString().split(":", 1)[0];
  if (named === undefined || USERS.has(String(named))) return;
  const user = String(named).slice(0, 64);
  throw new ClientError("unauthorized", `error looking up user '${user}': user: unknown user ${user}`);
}

function queryOf({ request }: AskedOfSandbox): { readonly path: string } {
  const { path } = request.query;
  if (path !== undefined && typeof path !== "string") throw new ClientError("invalid_path", "path must be one text");
  return { path: path ?? "" };
}

/** @throws {ClientError} 400 where there is none, 413 for one that is too large. */
function filesIn(asked: Asked<unknown, Upload, unknown>): readonly UploadedFile[] {
  const { body, services } = asked;
  const { path } = queryOf(asked);
  const files =
    body.form === null
      ? [{ path, content: body.content }]
      : body.form.map((file) => (path === "" ? file : { ...file, path }));
  if (files.length === 0) throw new ClientError("invalid_request", "There is no file in the field file.");
  if (path !== "" && files.length > 1) throw new ClientError("invalid_request", "With a path there can be one file.");
  if (files.some((file) => file.path === "")) throw new ClientError("invalid_path", "path is needed");
  const { MAX_FILE_SIZE: most } = services.config;
  if (files.some(({ content }) => content.length > most)) throw new ClientError("too_large");
  return files;
}
