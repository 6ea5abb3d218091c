import { type Response, Router } from "express";
import { z } from "zod";
import type { Services } from "../../service/execution-service.ts";
import type { CheckpointView, SessionView } from "../../sessions/views.ts";
import { parseRequest } from "../body.ts";
import { callerOf } from "../caller.ts";
import { principalOf, requireScope } from "../middleware/authentication.ts";
import { environment, plainName } from "../validation.ts";
import { serveFileCollection } from "./file-collection.ts";

const MAX_TTL_S = 315_360_000;

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
});

/** Body of `POST /api/sessions/:id/checkpoints`. */
export const checkpointBody = z.object({ name: plainName("Checkpoint name").optional() });

/** `/api/sessions`: sessions, their checkpoints and their files. */
export function sessionRoutes(services: Services): Router {
  const router = Router();
  const { sessions, packages } = services;
  const timestamp = () => new Date().toISOString();
  const idOf = (response: Response) => principalOf(response).id;
  router.use("/api/sessions", requireScope("execute"));

  router.post("/api/sessions", async (request, response) => {
    const body = parseRequest(sessionBody, request);
    const wanted = body.environment ?? packages.defaultEnvironment;
    const { environment } = await packages.environmentFor(idOf(response), wanted);
    const ttlMs = body.ttl === undefined ? undefined : Math.ceil(body.ttl * 1000);
    const session = await sessions.create(idOf(response), { environment, ttlMs, id: body.id });
    services.securityLog?.append({
      event: "session_create",
      ...callerOf(request, response),
      details: { session: session.id },
    });
    response.status(201).json({ success: true, session: toReply(session), timestamp: timestamp() });
  });

  router.get("/api/sessions", async (_request, response) => {
    const list = await sessions.list(idOf(response));
    response.json({ success: true, sessions: list.map(toReply), count: list.length, timestamp: timestamp() });
  });

  router.get("/api/sessions/:id", async (request, response) => {
    const session = await sessions.get(idOf(response), request.params.id);
    response.json({ success: true, session: toReply(session), timestamp: timestamp() });
  });

  router.delete("/api/sessions/:id", async (request, response) => {
    await sessions.delete(idOf(response), request.params.id);
    services.securityLog?.append({
      event: "session_delete",
      ...callerOf(request, response),
      details: { session: request.params.id },
    });
    response.json({ success: true, message: "Session deleted successfully", timestamp: timestamp() });
  });

  router.post("/api/sessions/:id/fork", async (request, response) => {
    const session = await sessions.fork(idOf(response), request.params.id);
    services.securityLog?.append({
      event: "session_create",
      ...callerOf(request, response),
      details: { session: session.id, forkOf: request.params.id },
    });
    response.status(201).json({ success: true, session: toReply(session), timestamp: timestamp() });
  });

  router.post("/api/sessions/:id/interrupt", async (request, response) => {
    const interrupted = await sessions.interrupt(idOf(response), request.params.id);
    response.json({ success: true, interrupted, timestamp: timestamp() });
  });

  router.get("/api/sessions/:id/checkpoints", async (request, response) => {
    const list = await sessions.checkpoints.list(idOf(response), request.params.id);
    response.json({ success: true, checkpoints: list.map(toCheckpoint), count: list.length, timestamp: timestamp() });
  });

  router.post("/api/sessions/:id/checkpoints", async (request, response) => {
    const { name } = parseRequest(checkpointBody, request);
    const checkpoint = await sessions.checkpoints.create(idOf(response), request.params.id, name);
    response.status(201).json({ success: true, checkpoint: toCheckpoint(checkpoint), timestamp: timestamp() });
  });

  router.post("/api/sessions/:id/checkpoints/:name/restore", async (request, response) => {
    const { id, name } = request.params;
    const session = await sessions.restore(idOf(response), id, name);
    response.json({ success: true, session: toReply(session), timestamp: timestamp() });
  });

  router.use("/api/sessions/:id/files", requireScope("files"));
  serveFileCollection(router, "/api/sessions/:id/files", services, (request, response) => {
    const [principal, id] = [idOf(response), String(request.params.id)];
    return {
      list: async () => await sessions.files.list(principal, id),
      read: async (path) => await sessions.files.read(principal, id, path),
      write: async (path, content) => await sessions.files.write(principal, id, path, content),
      remove: async (path) => await sessions.files.delete(principal, id, path),
    };
  });
  return router;
}

function toReply({ createdAtMs, lastUsedAtMs, expiresAtMs, ...rest }: SessionView) {
  return { ...rest, createdAt: toIso(createdAtMs), lastUsedAt: toIso(lastUsedAtMs), expiresAt: toIso(expiresAtMs) };
}

function toCheckpoint({ createdAtMs, ...rest }: CheckpointView) {
  return { ...rest, createdAt: toIso(createdAtMs) };
}

function toIso(timeMs: number): string {
  return new Date(timeMs).toISOString();
}
