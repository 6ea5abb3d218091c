import { z } from "zod";
import { createSession, sessionBody, toCheckpoint, toReply } from "../../http/resources/sessions.ts";
import type { SessionView } from "../../sessions/views.ts";
import { as, structured, tool } from "./tool.ts";

const { id, environment, ttl, env, cwd, metadata, ...defaults } = sessionBody.shape;
const sessionId = z.string("Session must be a string.").meta({ description: "Its id." });

const session = z.looseObject({
  id: z.string(),
  environment: z.string(),
  state: z.string(),
  createdAt: z.string(),
  lastUsedAt: z.string(),
  expiresAt: z.string(),
  executions: z.int(),
  checkpoints: z.int(),
});
const one = z.looseObject({ session });

function described(view: SessionView, what: string) {
  const shown = toReply(view);
  return structured(
    { session: shown },
    `${what} ${shown.id} (environment ${shown.environment}, until ${shown.expiresAt} if it is not used).`,
  );
}

export const sessionTools = [
  tool({
    name: "session_create",
    title: "Create a session",
    description:
      "Makes a Python session: variables, imports and files stay between run_python calls that name it, also when it is not used for hours.",
    scopes: ["execute"],
    input: z.object({
      environment: environment.meta({ description: "Package set, see environments_list." }),
      id: id.meta({ description: "Its id; default: a random one." }),
      ttl_s: ttl.meta({ description: "It ends when it is not used for so long, seconds." }),
      cwd,
      env,
      metadata,
      tools: defaults.tools,
      network: defaults.network,
    }),
    aliases: { ttl: as("ttl_s") },
    output: one,
    run: async (call, { ttl_s: ttl, ...body }) => {
      const made = await createSession(call.services, call.principal.id, { ...body, ttl });
      call.record("session_create", { session: made.id });
      return described(made, "Created session");
    },
  }),
  tool({
    name: "session_fork",
    title: "Fork a session",
    description: "Makes a new session that begins as this one is: try something out without changing the other.",
    scopes: ["execute"],
    input: z.object({ session: sessionId }),
    output: one,
    run: async (call, input) => {
      const made = await call.services.sessions.fork(call.principal.id, input.session, call.signal);
      call.record("session_create", { session: made.id, forkOf: input.session });
      return described(made, "Forked: session");
    },
  }),
  tool({
    name: "session_checkpoint",
    title: "Checkpoint a session",
    description: "Keeps variables and files of a session as they are now, for session_restore.",
    scopes: ["execute"],
    input: z.object({
      session: sessionId,
      name: z
        .string("Checkpoint name must be a string.")
        .optional()
        .meta({ description: "Default: `checkpoint-1`, …" }),
    }),
    aliases: { checkpoint: as("name") },
    output: z.looseObject({
      checkpoint: z.looseObject({ name: z.string(), createdAt: z.string(), executions: z.int() }),
    }),
    run: async (call, input) => {
      const { checkpoints } = call.services.sessions;
      const made = await checkpoints.create(call.principal.id, input.session, call.signal, input.name);
      return structured({ checkpoint: toCheckpoint(made) }, `Kept as "${made.name}".`);
    },
  }),
  tool({
    name: "session_restore",
    title: "Restore a session",
    description: "Takes a session back to a checkpoint; `@previous` is the state before the last change.",
    scopes: ["execute"],
    input: z.object({
      session: sessionId,
      checkpoint: z.string("Checkpoint must be a string.").meta({ description: "Its name, or `@previous`." }),
    }),
    aliases: { name: as("checkpoint") },
    output: one,
    annotations: { destructiveHint: true },
    run: async (call, input) => {
      const { sessions } = call.services;
      return described(
        await sessions.restore(call.principal.id, input.session, call.signal, input.checkpoint),
        `Restored "${input.checkpoint}": session`,
      );
    },
  }),
  tool({
    name: "session_list",
    title: "List sessions",
    description: "Lists your sessions, and the checkpoints of one if it is named.",
    scopes: ["execute"],
    input: z.object({
      session: sessionId.optional().meta({ description: "Of this one alone, with its checkpoints." }),
    }),
    output: z.looseObject({
      sessions: z.array(session),
      count: z.int(),
      checkpoints: z.array(z.looseObject({ name: z.string(), createdAt: z.string() })).optional(),
    }),
    annotations: { readOnlyHint: true, idempotentHint: true },
    run: async (call, input) => {
      const { sessions } = call.services;
      const { id: principal } = call.principal;
      if (input.session === undefined) {
        const list = await sessions.list(principal);
        const lines = list.map(
          ({ id, environment, state, executions }) => `${id} (${environment}, ${state}, ${executions} executions)`,
        );
        return structured({ sessions: list.map(toReply), count: list.length }, lines.join("\n") || "(no sessions)");
      }
      const view = await sessions.get(principal, input.session);
      const checkpoints = (await sessions.checkpoints.list(principal, input.session)).map(toCheckpoint);
      return structured({ sessions: [toReply(view)], count: 1, checkpoints });
    },
  }),
  tool({
    name: "session_delete",
    title: "Delete a session",
    description: "Ends a session: its variables, files and checkpoints are gone.",
    scopes: ["execute"],
    input: z.object({ session: sessionId }),
    output: z.looseObject({ deleted: z.string() }),
    annotations: { destructiveHint: true, idempotentHint: true },
    run: async (call, input) => {
      await call.services.sessions.delete(call.principal.id, input.session, call.signal);
      call.record("session_delete", { session: input.session });
      return structured({ deleted: input.session }, `Session ${input.session} is gone.`);
    },
  }),
];
