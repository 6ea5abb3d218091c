import type { Response } from "express";
import { z } from "zod";
import { callerOf } from "../../http/caller.ts";
import { endpoint, json, type ProtocolEndpoint, type ProtocolOptions } from "../../http/protocol.ts";
import { sessionBody } from "../../http/resources/sessions.ts";
import { jsonBody } from "../../http/routes.ts";
import { env } from "../../http/validation.ts";
import { ClientError } from "../../shared/errors.ts";
import type { Config } from "../../shared/settings.ts";
import { describeSnapshot, description, detail, made, metricsOf, toError } from "./descriptions.ts";
import { network, toKept, toNetworkInput } from "./network.ts";
import { paginate } from "./paging.ts";
import type { Sandbox, Sandboxes } from "./sandboxes.ts";
import { isPaused } from "./state.ts";

/** What SDKs have where their user says nothing, s. */
const DEFAULT_TIMEOUT_S = 300;
const MAX_TIMEOUT_S = 30 * 24 * 60 * 60;
const MAX_FORKS = 100;

const timeout = z
  .int("timeout must be a whole number of seconds.")
  .min(0, "timeout must not be negative.")
  .max(MAX_TIMEOUT_S, `timeout must be at most ${MAX_TIMEOUT_S} seconds.`);
const memory = z.literal(true, "memory: false is not supported here: a paused sandbox keeps its memory.").nullish();
const timeoutBody = jsonBody(z.object({ timeout: timeout.default(DEFAULT_TIMEOUT_S), memory }), {});

const newSandbox = z.object({
  templateID: z.string("templateID must be a string."),
  timeout: timeout.default(DEFAULT_TIMEOUT_S),
  metadata: sessionBody.shape.metadata.unwrap().nullish(),
  envVars: env.nullish(),
  autoPause: z.boolean("autoPause must be true or false.").nullish(),
  autoPauseMemory: z.boolean("autoPauseMemory must be true or false.").nullish(),
  autoResume: z.looseObject({ enabled: z.boolean().nullish() }, "autoResume must be an object.").nullish(),
  allow_internet_access: z.boolean("allow_internet_access must be true or false.").nullish(),
  network: network.nullish(),
  mcp: z.unknown().optional(),
  iam: z.unknown().optional(),
  volumeMounts: z.unknown().optional(),
});

const VERSION_2 = ["/sandboxes", "/sandboxes/:id/connect"];

/** What E2B has of a machine that a Python without one cannot have. */
const REFUSED = {
  mcp: "MCP servers do not run in a sandbox: this server offers its own at /mcp",
  iam: "there are no workload identities: let network.rules add headers with secrets of this server",
  volumeMounts: "there are no volumes: files are the sandbox's own",
} as const;

/** `/sandboxes`, `/snapshots`: what the SDK finds by `E2B_API_URL`. */
export function controlPlane(
  sandboxes: Sandboxes,
  config: Config,
  count: ProtocolOptions["count"],
): readonly ProtocolEndpoint[] {
  const describe = (sandbox: Sandbox) => description(sandbox, config);
  const endpoints = [
    endpoint({
      method: "post",
      path: "/sandboxes",
      scope: "execute",
      body: jsonBody(newSandbox, { templateID: "base" }),
      reply: json(201),
      handler: async (asked) => {
        const { services, principal, signal, record, body } = asked;
        for (const [member, hint] of Object.entries(REFUSED)) {
          const value = body[member as keyof typeof REFUSED];
          if (value != null && Object.keys(value).length > 0)
            throw new ClientError("invalid_request", `${member} is not supported here: ${hint}.`);
        }
        const allowed = body.allow_internet_access ?? null;
        const rules = toNetworkInput(body.network, allowed);
        await services.network.check(principal.id, rules);
        const sandbox = await sandboxes.create(
          principal.id,
          {
            template: body.templateID,
            timeoutS: body.timeout,
            onTimeout: body.autoPause ? "pause" : "kill",
            autoResume: body.autoResume?.enabled ?? false,
            envVars: body.envVars ?? {},
            metadata: body.metadata ?? {},
            allowInternetAccess: allowed,
            network: toKept(body.network, rules),
            rules,
          },
          signal,
        );
        record("session_create", { session: sandbox.id });
        return made(asked, sandbox);
      },
    }),

    endpoint({
      method: "get",
      path: "/sandboxes",
      scope: "execute",
      reply: json(),
      handler: async ({ principal, request }) => {
        const wanted = metadataOf(request.query.metadata);
        const all = (await sandboxes.list(principal.id)).filter(({ state }) => !isPaused(state));
        return all.filter((sandbox) => hasMetadata(sandbox, wanted)).map(describe);
      },
    }),

    endpoint({
      method: "get",
      path: "/v2/sandboxes",
      scope: "execute",
      reply: json(),
      handler: async ({ principal, request, response }) => {
        const { metadata, state, order, startedAfter, template } = request.query;
        const wanted = metadataOf(metadata);
        const states = [state ?? ["running", "paused"]].flat().flatMap((text) => String(text).split(","));
        const wrong = states.find((text) => text !== "running" && text !== "paused");
        if (wrong !== undefined) throw new ClientError("invalid_request", "state must be running or paused.");
        const since = startedAfter === undefined ? 0 : Date.parse(String(startedAfter));
        if (Number.isNaN(since)) throw new ClientError("invalid_request", "startedAfter must be a time.");
        const all = (await sandboxes.list(principal.id)).filter(
          (sandbox) =>
            hasMetadata(sandbox, wanted) &&
            states.includes(isPaused(sandbox.state) ? "paused" : "running") &&
            sandbox.state.startedAtMs >= since &&
            (template === undefined || sandbox.state.template === template),
        );
        response.setHeader("X-Total-Running", all.filter((sandbox) => !isPaused(sandbox.state)).length);
        if (order === "asc") all.reverse();
        return paginate(request, response, all, ({ record }) => record.id).map(describe);
      },
    }),

    endpoint({
      method: "get",
      path: "/sandboxes/:id",
      scope: "execute",
      reply: json(),
      handler: async (asked) => detail(asked, config, await sandboxes.get(asked.principal.id, asked.params.id)),
    }),

    endpoint({
      method: "delete",
      path: "/sandboxes/:id",
      scope: "execute",
      reply: nothing(),
      handler: async ({ principal, params, signal, record }) => {
        await sandboxes.kill(principal.id, params.id, signal);
        record("session_delete", { session: params.id });
      },
    }),

    endpoint({
      method: "post",
      path: "/sandboxes/:id/timeout",
      scope: "execute",
      body: timeoutBody,
      reply: nothing(),
      handler: async ({ principal, params, body }) =>
        await sandboxes.setTimeout(principal.id, params.id, body.timeout, "set"),
    }),

    endpoint({
      method: "post",
      path: "/sandboxes/:id/refreshes",
      scope: "execute",
      body: jsonBody(z.object({ duration: timeout.default(DEFAULT_TIMEOUT_S) }), {}),
      reply: nothing(),
      handler: async ({ principal, params, body }) =>
        await sandboxes.setTimeout(principal.id, params.id, body.duration, "extend"),
    }),

    endpoint({
      method: "post",
      path: "/sandboxes/:id/connect",
      scope: "execute",
      body: timeoutBody,
      handler: async (asked) => {
        const { principal, params, body, response } = asked;
        const sandbox = await sandboxes.resume(principal.id, params.id, body.timeout, false);
        response.status(sandbox.wasPaused ? 201 : 200).json(made(asked, sandbox));
      },
    }),

    endpoint({
      method: "post",
      path: "/sandboxes/:id/resume",
      scope: "execute",
      body: timeoutBody,
      reply: json(201),
      handler: async (asked) => {
        const { principal, params, body } = asked;
        return made(asked, await sandboxes.resume(principal.id, params.id, body.timeout, true));
      },
    }),

    endpoint({
      method: "post",
      path: "/sandboxes/:id/pause",
      scope: "execute",
      body: jsonBody(z.object({ memory }), {}),
      reply: nothing(),
      handler: async ({ principal, params, signal }) => {
        await sandboxes.pause(principal.id, params.id, signal);
      },
    }),

    endpoint({
      method: "post",
      path: "/sandboxes/:id/fork",
      scope: "execute",
      body: jsonBody(
        z.object({
          timeout: timeout.default(DEFAULT_TIMEOUT_S),
          count: z
            .int("count must be a whole number.")
            .min(1, "count must be at least 1.")
            .max(MAX_FORKS, `count must be at most ${MAX_FORKS}.`)
            .default(1),
        }),
        {},
      ),
      reply: json(201),
      handler: async (asked) => {
        const { principal, params, body, signal, record, request, response } = asked;
        await sandboxes.get(principal.id, params.id);
        const caller = callerOf(request, response);
        const results: object[] = [];
        for (let n = 0; n < body.count; n++) {
          try {
            if (n > 0) await count(principal.id, caller.ip);
            const sandbox = await sandboxes.fork(principal.id, params.id, body.timeout, signal);
            record("session_create", { session: sandbox.id, forkOf: params.id });
            results.push({ sandbox: made(asked, sandbox) });
          } catch (error) {
            if (!(error instanceof ClientError)) throw error;
            results.push({ error: toError(error) });
          }
        }
        return results;
      },
    }),

    endpoint({
      method: "put",
      path: "/sandboxes/:id/network",
      scope: "execute",
      body: jsonBody(network.extend({ allow_internet_access: z.boolean().nullish() }), {}),
      reply: nothing(),
      handler: async ({ services, principal, params, body }) => {
        const { allow_internet_access: allowed = null, ...told } = body;
        const rules = toNetworkInput(told, allowed);
        await sandboxes.get(principal.id, params.id);
        await services.network.check(principal.id, rules);
        await sandboxes.setNetwork(principal.id, params.id, {
          network: toKept(told, rules),
          rules,
          allowInternetAccess: allowed,
        });
      },
    }),

    endpoint({
      method: "get",
      path: "/sandboxes/:id/metrics",
      scope: "execute",
      reply: json(),
      handler: async ({ principal, params, request }) => {
        const sandbox = await sandboxes.get(principal.id, params.id);
        const metrics = metricsOf(sandbox, config);
        const { start = 0, end = Number.POSITIVE_INFINITY } = request.query;
        // Only what is now is known.
        const isAsked = Number(start) <= metrics.timestampUnix && metrics.timestampUnix <= Number(end);
        return isAsked && !isPaused(sandbox.state) ? [metrics] : [];
      },
    }),

    endpoint({
      method: "post",
      path: "/sandboxes/:id/snapshots",
      scope: "execute",
      body: jsonBody(z.object({ name: sessionBody.shape.id.unwrap().nullish() }), {}),
      reply: json(201),
      handler: async ({ principal, params, body, signal, record }) => {
        const { name = null } = body;
        if (name !== null && !/^[a-z0-9][a-z0-9_-]{0,62}$/i.test(name))
          throw new ClientError("invalid_request", "name must be of letters, digits, hyphens and underscores.");
        const snapshot = await sandboxes.createSnapshot(principal.id, params.id, name, signal);
        record("session_create", { session: snapshot.id, forkOf: params.id });
        return describeSnapshot(snapshot);
      },
    }),

    endpoint({
      method: "get",
      path: "/snapshots",
      scope: "execute",
      reply: json(),
      handler: async ({ principal, request, response }) => {
        const { sandboxID, name } = request.query;
        const all = (await sandboxes.snapshots(principal.id)).filter(
          ({ state }) =>
            (sandboxID === undefined || state.sandbox === sandboxID) && (name === undefined || state.name === name),
        );
        return paginate(request, response, all, ({ id }) => id).map(describeSnapshot);
      },
    }),

    endpoint({
      method: "delete",
      path: "/templates/:id",
      scope: "execute",
      reply: nothing(),
      handler: async ({ principal, params, signal, record }) => {
        await sandboxes.deleteSnapshot(principal.id, params.id, signal);
        record("session_delete", { session: params.id });
      },
    }),
  ];
  // Newer SDKs have version 2 of two of them, whose timeout need not be said.
  const renewed = endpoints.filter(({ method, path }) => method === "post" && VERSION_2.includes(path));
  return [...endpoints, ...renewed.map((older) => ({ ...older, path: `/v2${older.path}` }))];
}

/** `user=abc&app=prod`; SDKs encode names and values once more. */
function metadataOf(query: unknown): ReadonlyMap<string, string> {
  if (query === undefined) return new Map();
  const decoded = (text: string) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  };
  const pairs = new URLSearchParams(String(query));
  return new Map(Array.from(pairs, ([name, value]) => [decoded(name), decoded(value)]));
}

function hasMetadata({ record: { metadata = {} } }: Sandbox, wanted: ReadonlyMap<string, string>): boolean {
  return [...wanted].every(([name, value]) => Object.hasOwn(metadata, name) && metadata[name] === value);
}

function nothing() {
  return { send: (response: Response) => void response.status(204).end() };
}
