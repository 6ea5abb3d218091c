import { z } from "zod";
import { done, jsonBody, type Route, route } from "../routes.ts";

/** Body of `POST /api/reset`. */
const resetBody = z.object({
  session: z
    .string("Session must be a string.")
    .optional()
    .meta({ description: "Empty this session; default: remove the packages that the caller has installed." }),
});

/** `POST /api/reset`. */
export const resetRoutes: readonly Route[] = [
  route({
    method: "post",
    path: "/api/reset",
    scope: "execute",
    tag: "Packages and state",
    operation: "reset",
    summary: "Remove the packages that were installed",
    description: "Interpreters need no reset: every execution has a pristine one. Files stay.",
    body: jsonBody(resetBody, {}),
    reply: done("Done."),
    errors: ["session_not_found", "session_busy", "session_queue_full", "packages_busy", "store_unavailable"],
    handler: async ({ services, principal, body: { session }, signal, record }) => {
      // Every execution has a pristine interpreter; what is left to reset are the packages that were installed on top.
      if (session !== undefined) await services.sessions.reset(principal.id, session, signal);
      else if (principal.scopes.has("packages")) await services.packages.clear(principal.id);
      record("state_reset", {});
      return { message: "Pyodide environment reset successfully" };
    },
  }),
];
