import { z } from "zod";
import type { NamespaceView } from "../../sessions/views.ts";
import { done, jsonBody, type Route, reply, route } from "../routes.ts";
import { count, timestamp } from "../schemas.ts";
import { CHANGING, folder, NO_SESSION, plainName, toIso } from "./sessions.ts";

/** Body of `POST /api/sessions/:id/namespaces`. */
const namespaceBody = z.object({ name: plainName("Namespace name").optional(), cwd: folder.optional() });

const namespace = z
  .looseObject({
    name: z.string().meta({ description: "`__main__`: the one that code has which names none.", example: "plots" }),
    executions: z.int().min(0),
    createdAt: timestamp,
    cwd: z.string().optional().meta({ description: "Folder that it begins in, where that is its own." }),
  })
  .meta({ id: "Namespace" });

/** `/api/sessions/:id/namespaces`: several sets of global variables in one session. */
export const namespaceRoutes: readonly Route[] = [
  route({
    method: "get",
    path: "/api/sessions/:id/namespaces",
    scope: "execute",
    tag: "Sessions",
    operation: "listNamespaces",
    summary: "List a session's namespaces",
    reply: reply("The namespaces.", { namespaces: z.array(namespace), count }),
    errors: NO_SESSION,
    handler: async ({ services, principal, params }) => {
      const list = await services.sessions.namespaces.list(principal.id, params.id);
      return { namespaces: list.map(toReply), count: list.length };
    },
  }),

  route({
    method: "post",
    path: "/api/sessions/:id/namespaces",
    scope: "execute",
    tag: "Sessions",
    operation: "createNamespace",
    summary: "Give a session another set of global variables",
    body: jsonBody(namespaceBody, { name: "plots", cwd: "plots" }),
    reply: reply("The namespace.", { namespace }, { status: 201 }),
    errors: ["invalid_namespace_name", "invalid_path", "namespace_exists", "namespace_limit", ...CHANGING],
    handler: async ({ services, principal, params, body, signal }) => ({
      namespace: toReply(await services.sessions.namespaces.create(principal.id, params.id, signal, body)),
    }),
  }),

  route({
    method: "post",
    path: "/api/sessions/:id/namespaces/:name/reset",
    scope: "execute",
    tag: "Sessions",
    operation: "resetNamespace",
    summary: "Forget the variables of a namespace",
    reply: done("It begins anew with the session's next execution."),
    errors: ["not_found", ...CHANGING],
    handler: async ({ services, principal, params, signal }) => {
      await services.sessions.namespaces.reset(principal.id, params.id, signal, params.name);
      return { message: "Namespace reset successfully" };
    },
  }),

  route({
    method: "delete",
    path: "/api/sessions/:id/namespaces/:name",
    scope: "execute",
    tag: "Sessions",
    operation: "deleteNamespace",
    summary: "Delete a namespace",
    reply: done("It is gone."),
    errors: ["not_found", "invalid_request", ...CHANGING],
    handler: async ({ services, principal, params, signal }) => {
      await services.sessions.namespaces.delete(principal.id, params.id, signal, params.name);
      return { message: "Namespace deleted successfully" };
    },
  }),
];

function toReply({ createdAtMs, ...rest }: NamespaceView) {
  return { ...rest, createdAt: toIso(createdAtMs) };
}
