import { z } from "zod";
import { networkInput } from "../../egress/network-rules.ts";
import type { Services } from "../../service/execution-service.ts";
import { sessionTools } from "../../service/tool-calls.ts";
import { type CheckpointView, PLAIN_NAME, type SessionView } from "../../sessions/views.ts";
import { ClientError, type ErrorCode } from "../../shared/errors.ts";
import { workspaceFolder } from "../../workspaces/paths.ts";
import { done, jsonBody, type Route, reply, route } from "../routes.ts";
import { bytes, count, timestamp } from "../schemas.ts";
import { env, environment, toolFields } from "../validation.ts";
import { type FileCollection, fileCollection } from "./file-collection.ts";

const MAX_TTL_S = 315_360_000;
const MAX_METADATA_MEMBERS = 64;
const MAX_METADATA_NAME_CHARACTERS = 256;
/** Names and values, all together. */
export const MAX_METADATA_CHARACTERS = 16 * 1024;

/** A name that a caller gives to something of its own. What it may be is the sessions' own rule, with a code of its own: `checkedName`. */
export const plainName = (what: string) => z.string(`${what} must be a string.`).meta({ pattern: PLAIN_NAME.source });

const metadata = z
  .record(z.string(), z.string("Values of metadata must be strings."), "Metadata must be an object of strings.")
  .superRefine((members, { addIssue }) => {
    const all = Object.entries(members);
    const characters = all.reduce((sum, [name, value]) => sum + name.length + value.length, 0);
    if (all.length > MAX_METADATA_MEMBERS) addIssue(`Metadata may have at most ${MAX_METADATA_MEMBERS} members.`);
    if (all.some(([{ length }]) => length === 0 || length > MAX_METADATA_NAME_CHARACTERS))
      addIssue(`Names of metadata must have 1 to ${MAX_METADATA_NAME_CHARACTERS} characters.`);
    if (characters > MAX_METADATA_CHARACTERS)
      addIssue(`Metadata too long. Maximum: ${MAX_METADATA_CHARACTERS} characters.`);
  })
  .meta({ description: "What its owner wants to find it by; forks copy it.", example: { user: "u-17" } });

export const folder = z.string("Cwd must be a string.").transform(workspaceFolder).meta({
  description: "Folder that it begins in, made if it is not there; relative to `/home/pyodide`.",
  example: "project",
  type: "string",
});

/** Body of `POST /api/sessions`. */
export const sessionBody = z.object({
  environment: environment.optional(),
  ttl: z
    .number("Ttl must be a positive number (seconds).")
    .positive("Ttl must be a positive number (seconds).")
    .max(MAX_TTL_S, `Ttl too large. Maximum: ${MAX_TTL_S} seconds.`)
    .optional()
    .meta({ description: "The session ends when it is not used for so long, seconds.", example: 3600 }),
  id: plainName("Session id").optional(),
  cwd: folder.optional(),
  env: env.optional(),
  metadata: metadata.optional(),
  files: z
    .enum(["own", "workspace"], 'Files must be "own" or "workspace".')
    .optional()
    .meta({
      description:
        "What its code works on: files of its own, which are part of its states (the default), or the caller's workspace, " +
        "which it shares with all other executions.",
    }),
  network: networkInput.optional(),
  ...toolFields,
});

/** Body of `POST /api/sessions/:id/checkpoints`. */
const checkpointBody = z.object({ name: plainName("Checkpoint name").optional() });

const session = z
  .looseObject({
    id: z.string(),
    environment: z.string(),
    state: z.string().meta({ description: "`resident`, `hibernated`, …; on the server that answers." }),
    createdAt: timestamp,
    lastUsedAt: timestamp,
    expiresAt: timestamp,
    memoryBytes: bytes.meta({ description: "Of its stored state, compressed." }),
    files: z.string().meta({ description: "What its code works on: `own` files, or the caller's `workspace`." }),
    fileBytes: bytes.meta({ description: "Of its own files." }),
    executions: z.int().min(0),
    checkpoints: z.int().min(0),
    metadata: z.record(z.string(), z.string()),
    pinned: z.string().optional().meta({ description: "Why it cannot leave its sandbox." }),
  })
  .meta({ id: "Session" });
const checkpoint = z
  .looseObject({
    name: z.string(),
    createdAt: timestamp,
    executions: z.int().min(0),
    memoryBytes: bytes,
    fileBytes: bytes,
  })
  .meta({ id: "Checkpoint" });

/** What every change of stored sessions may meet. */
const STORING: readonly ErrorCode[] = [
  "session_queue_full",
  "session_busy",
  "session_moved",
  "session_pinned",
  "session_waiting",
  "session_damaged",
  "store_full",
  "storage_full",
  "store_unavailable",
  "server_stopping",
];
/** What every change of a session may meet. */
export const CHANGING: readonly ErrorCode[] = ["session_not_found", ...STORING];
export const NO_SESSION: readonly ErrorCode[] = ["session_not_found", "store_unavailable"];

/** `/api/sessions`: sessions, their checkpoints and their files. */
export const sessionRoutes: readonly Route[] = [
  route({
    method: "post",
    path: "/api/sessions",
    scope: "execute",
    tag: "Sessions",
    operation: "createSession",
    summary: "Create a session",
    body: jsonBody(sessionBody, { ttl: 3600 }),
    reply: reply("The session.", { session }, { status: 201 }),
    errors: [
      "unknown_environment",
      "starting",
      "invalid_network",
      "invalid_tools",
      "unknown_tool_endpoint",
      "unknown_secret",
      "secret_host",
      "secret_unreadable",
      "invalid_session_id",
      "invalid_path",
      "session_exists",
      "session_limit",
      "store_full",
      "storage_full",
      "store_unavailable",
      "server_stopping",
    ],
    handler: async ({ services, principal, body, record }) => {
      const made = await createSession(services, principal.id, body);
      record("session_create", { session: made.id });
      return { session: toReply(made) };
    },
  }),

  route({
    method: "get",
    path: "/api/sessions",
    scope: "execute",
    tag: "Sessions",
    operation: "listSessions",
    summary: "List the caller's sessions",
    description:
      "With `?metadata.user=u-17` those whose `metadata` has this value under this name; of several names, all of them.",
    reply: reply("The sessions.", { sessions: z.array(session), count }),
    errors: ["invalid_request", "store_unavailable"],
    handler: async ({ services, principal, request }) => {
      const wanted = metadataOf(request.query);
      const all = await services.sessions.list(principal.id);
      const list = all.filter(({ metadata }) =>
        wanted.every(([name, value]) => Object.hasOwn(metadata, name) && metadata[name] === value),
      );
      return { sessions: list.map(toReply), count: list.length };
    },
  }),

  route({
    method: "get",
    path: "/api/sessions/:id",
    scope: "execute",
    tag: "Sessions",
    operation: "getSession",
    summary: "Describe a session",
    reply: reply("The session.", { session }),
    errors: NO_SESSION,
    handler: async ({ services, principal, params }) => ({
      session: toReply(await services.sessions.get(principal.id, params.id)),
    }),
  }),

  route({
    method: "delete",
    path: "/api/sessions/:id",
    scope: "execute",
    tag: "Sessions",
    operation: "deleteSession",
    summary: "End a session",
    reply: done("It is gone."),
    errors: [...NO_SESSION, "session_busy"],
    handler: async ({ services, principal, params, signal, record }) => {
      await services.sessions.delete(principal.id, params.id, signal);
      record("session_delete", { session: params.id });
      return { message: "Session deleted successfully" };
    },
  }),

  route({
    method: "post",
    path: "/api/sessions/:id/fork",
    scope: "execute",
    tag: "Sessions",
    operation: "forkSession",
    summary: "Make a new session that begins as this one is",
    reply: reply("The new session.", { session }, { status: 201 }),
    errors: ["session_not_found", "session_limit", ...STORING],
    handler: async ({ services, principal, params, signal, record }) => {
      const made = await services.sessions.fork(principal.id, params.id, signal);
      record("session_create", { session: made.id, forkOf: params.id });
      return { session: toReply(made) };
    },
  }),

  route({
    method: "post",
    path: "/api/sessions/:id/interrupt",
    scope: "execute",
    tag: "Sessions",
    operation: "interruptSession",
    summary: "Interrupt what runs in a session",
    reply: reply("Whether anything ran.", { interrupted: z.boolean() }),
    errors: NO_SESSION,
    handler: async ({ services, principal, params }) => ({
      interrupted: await services.sessions.interrupt(principal.id, params.id),
    }),
  }),

  route({
    method: "get",
    path: "/api/sessions/:id/checkpoints",
    scope: "execute",
    tag: "Sessions",
    operation: "listCheckpoints",
    summary: "List a session's checkpoints",
    reply: reply("The checkpoints.", { checkpoints: z.array(checkpoint), count }),
    errors: NO_SESSION,
    handler: async ({ services, principal, params }) => {
      const list = await services.sessions.checkpoints.list(principal.id, params.id);
      return { checkpoints: list.map(toCheckpoint), count: list.length };
    },
  }),

  route({
    method: "post",
    path: "/api/sessions/:id/checkpoints",
    scope: "execute",
    tag: "Sessions",
    operation: "createCheckpoint",
    summary: "Keep what a session is now under a name",
    body: jsonBody(checkpointBody, { name: "before-training" }),
    reply: reply("The checkpoint.", { checkpoint }, { status: 201 }),
    errors: ["session_not_found", "invalid_checkpoint_name", "checkpoint_exists", "checkpoint_limit", ...STORING],
    handler: async ({ services, principal, params, body, signal }) => ({
      checkpoint: toCheckpoint(await services.sessions.checkpoints.create(principal.id, params.id, signal, body.name)),
    }),
  }),

  route({
    method: "post",
    path: "/api/sessions/:id/checkpoints/:name/restore",
    scope: "execute",
    tag: "Sessions",
    operation: "restoreCheckpoint",
    summary: "Take a session back to a checkpoint",
    reply: reply("The session.", { session }),
    errors: ["session_not_found", "not_found", ...STORING],
    handler: async ({ services, principal, params, signal }) => ({
      session: toReply(await services.sessions.restore(principal.id, params.id, signal, params.name)),
    }),
  }),

  ...fileCollection({
    base: "/api/sessions/:id/files",
    scope: ["execute", "files"],
    tag: "Sessions",
    what: "SessionFile",
    whose: "a session",
    errors: {
      read: ["session_not_found", "session_damaged", "store_unavailable", "content_gone"],
      write: ["session_not_found", "session_full", "file_open", "workspace_full", ...STORING],
    },
    collectionOf: ({ services, principal, request, signal }) =>
      sessionFiles(services, principal.id, String(request.params.id), signal),
  }),
];

/** What `?metadata.<name>=<value>` asks for. @throws {ClientError} 400 `invalid_request` for a name that has several values. */
function metadataOf(query: Readonly<Record<string, unknown>>): readonly (readonly [name: string, value: string])[] {
  return Object.entries(query).flatMap(([parameter, value]) => {
    if (!parameter.startsWith("metadata.")) return [];
    if (typeof value !== "string") throw new ClientError("invalid_request", `${parameter} must have one value.`);
    return [[parameter.slice("metadata.".length), value] as const];
  });
}

export function sessionFiles(
  { sessions }: Pick<Services, "sessions">,
  principal: string,
  id: string,
  signal: AbortSignal,
): FileCollection {
  return {
    details: { session: id },
    list: async () => await sessions.files.list(principal, id),
    read: async (path, onSize) => await sessions.files.read(principal, id, path, onSize),
    write: async (path, content) => await sessions.files.write(principal, id, signal, path, content),
    remove: async (path) => await sessions.files.delete(principal, id, signal, path),
  };
}

/** @throws {ClientError} what `POST /api/sessions` may answer. */
export async function createSession(
  services: Services,
  principal: string,
  body: z.output<typeof sessionBody>,
): Promise<SessionView> {
  const { sessions, packages, network } = services;
  const { environment } = await packages.environmentFor(principal, body.environment ?? packages.defaultEnvironment);
  await network.check(principal, body.network);
  const ttlMs = body.ttl === undefined ? undefined : Math.ceil(body.ttl * 1000);
  const tools = sessionTools(services, body, principal);
  const { id, network: reached, metadata, cwd, env } = body;
  const start = cwd === undefined && env === undefined ? undefined : { cwd, env };
  const files = body.files === "workspace" ? body.files : undefined;
  const facts = { environment, ttlMs, id, network: reached, tools, metadata, start, files };
  return await sessions.create(principal, facts);
}

export function toReply({ createdAtMs, lastUsedAtMs, expiresAtMs, ...rest }: SessionView) {
  return { ...rest, createdAt: toIso(createdAtMs), lastUsedAt: toIso(lastUsedAtMs), expiresAt: toIso(expiresAtMs) };
}

export function toCheckpoint({ createdAtMs, ...rest }: CheckpointView) {
  return { ...rest, createdAt: toIso(createdAtMs) };
}

export function toIso(timeMs: number): string {
  return new Date(timeMs).toISOString();
}
