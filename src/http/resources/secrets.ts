import { z } from "zod";
import type { ErrorCode } from "../../shared/errors.ts";
import { readBodies } from "../body.ts";
import { type BodyKind, done, jsonBody, type Route, reply, route } from "../routes.ts";
import { count } from "../schemas.ts";

/** Body of `PUT /api/secrets/:name`. What the value may be is said where it is stored, in words that do not repeat it. */
const secretBody = z.object({
  value: z.string("Value must be a string.").meta({ description: "It can be replaced, not read." }),
  hosts: z
    .array(z.string("Hosts must be an array of hosts."), "Hosts must be an array of hosts.")
    .optional()
    .meta({ description: "The only hosts that it may be sent to.", example: ["api.github.com"] }),
});

const secret = z
  .looseObject({
    name: z.string(),
    hosts: z
      .array(z.string())
      .nullable()
      .meta({ description: "The only origins that it may be sent to; null: those of its owner's rules." }),
  })
  .meta({ id: "Secret", description: "A secret without its value, which no reply has." });

/** As every JSON body is read, which those of PUT are not. */
const readByRoute: BodyKind<z.output<typeof secretBody>> = {
  ...jsonBody(secretBody, { value: "ghp_0123456789", hosts: ["api.github.com"] }),
  middleware: () => readBodies(() => true),
};

const STORE: readonly ErrorCode[] = ["store_unavailable"];

/** `/api/secrets`: credentials for the rules of `network`, which no code sees. */
export const secretRoutes: readonly Route[] = [
  route({
    method: "get",
    path: "/api/secrets",
    scope: "secrets",
    tag: "Secrets",
    operation: "listSecrets",
    summary: "List the names of the caller's secrets",
    reply: reply("The names, and never a value.", { secrets: z.array(secret), count }),
    errors: STORE,
    handler: async ({ services, principal }) => {
      const secrets = await services.secrets.list(principal.id);
      return { secrets: [...secrets], count: secrets.length };
    },
  }),

  route({
    method: "get",
    path: "/api/secrets/:name",
    scope: "secrets",
    tag: "Secrets",
    operation: "getSecret",
    summary: "Whether there is a secret of this name",
    reply: reply("There is.", { secret }),
    errors: ["secret_not_found", ...STORE],
    handler: async ({ services, principal, params }) => ({
      secret: await services.secrets.get(principal.id, params.name),
    }),
  }),

  route({
    method: "put",
    path: "/api/secrets/:name",
    scope: "secrets",
    tag: "Secrets",
    operation: "putSecret",
    summary: "Store or replace a secret",
    description:
      "It is encrypted with the operator's key. `${secret:NAME}` in a header of `network.rules` stands for it; nothing else reads it.",
    body: readByRoute,
    reply: reply("It is stored.", { secret }),
    errors: ["invalid_secret", "secret_limit", "secrets_off", "storage_full", ...STORE],
    handler: async ({ services, principal, params, body, record }) => {
      const stored = await services.secrets.put(principal.id, params.name, body.value, body.hosts ?? null);
      record("secret_put", { secret: stored.name });
      return { secret: stored };
    },
  }),

  route({
    method: "delete",
    path: "/api/secrets/:name",
    scope: "secrets",
    tag: "Secrets",
    operation: "deleteSecret",
    summary: "Delete a secret",
    reply: done("It is gone."),
    errors: ["secret_not_found", "storage_full", ...STORE],
    handler: async ({ services, principal, params, record }) => {
      await services.secrets.delete(principal.id, params.name);
      record("secret_delete", { secret: params.name });
      return { message: "Secret deleted successfully" };
    },
  }),
];
