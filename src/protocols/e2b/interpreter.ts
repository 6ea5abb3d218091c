import { randomUUID } from "node:crypto";
import { z } from "zod";
import { contextOf } from "../../http/caller.ts";
import { EventStream } from "../../http/event-stream.ts";
import { endpoint, json, type ProtocolEndpoint } from "../../http/protocol.ts";
import { type Asked, jsonBody } from "../../http/routes.ts";
import { env, executeBody } from "../../http/validation.ts";
import { DEFAULT_NAMESPACE } from "../../sessions/namespaces.ts";
import type { NamespaceView } from "../../sessions/views.ts";
import { ClientError } from "../../shared/errors.ts";
import { Slices } from "../../shared/json/json-members.ts";
import { HOME, workspaceFolder } from "../../workspaces/paths.ts";
import { cutNote } from "../execution-limits.ts";
import { InOrder } from "../in-order.ts";
import { addressOf, INTERPRETER_PORT } from "./address.ts";
import { E2B_HOME, toE2b, toOwn } from "./paths.ts";
import { toErrorEvent, toResult } from "./results.ts";
import { runInSandbox } from "./run.ts";
import type { Sandboxes } from "./sandboxes.ts";

/** E2B's too: how long nothing may be heard of an execution, ms. */
const KEEPALIVE_MS = 5_000;
/** Lines of JSON; E2B's clients read each. */
const LINES = {
  type: "application/x-ndjson; charset=utf-8",
  before: "",
  after: "\n",
  heartbeat: `${JSON.stringify({ type: "keepalive" })}\n`,
} as const;

/** The one that is there without being made. */
const DEFAULT_CONTEXT = "default";
/** Where commands run: no context of a client's. */
export const COMMANDS = "e2b-commands";
const PYTHON: ReadonlySet<string> = new Set(["python", "python3", "py"]);

const language = z.string("language must be a string.").nullish();
const execution = z.object({
  code: executeBody.shape.code,
  context_id: z.string("context_id must be a string.").nullish(),
  language,
  env_vars: env.nullish(),
});
const newContext = z.object({ cwd: z.string("cwd must be a string.").nullish(), language });

type AskedOfSandbox = Asked<unknown, unknown, unknown>;

/** What is at port 49999 of a sandbox: E2B's code interpreter. */
export function interpreter(sandboxes: Sandboxes): readonly ProtocolEndpoint[] {
  return [
    endpoint({
      method: "post",
      path: "/execute",
      scope: "execute",
      body: jsonBody(execution, { code: "1 + 1" }),
      handler: async (asked) => {
        const { services, request, response, body } = asked;
        const { id } = sandboxOf(asked);
        if (body.context_id && body.language)
          throw new ClientError("invalid_request", "Only one of context_id or language can be provided");
        refuseOther(body.language);
        const namespace = body.context_id ? await contextNamed(asked, body.context_id) : undefined;
        const stream = new EventStream(response, KEEPALIVE_MS, LINES);
        const send = (event: object) => stream.send(event);
        const print = (type: "stdout" | "stderr", text: string) =>
          send({ type, text, timestamp: new Date().toISOString() });
        const { code, env_vars: env } = body;
        const input = { code, env: env ?? undefined, namespace, display: true, printTraceback: false };
        let hasBegun = false;
        const shown = new InOrder();
        const slices = new Slices();
        try {
          const result = await runInSandbox(
            services,
            sandboxes,
            {
              id,
              input,
              onWait: () => stream.open(),
              onStart: () => {
                hasBegun = true;
                // The SDK counts the code's time from here on.
                stream.open();
              },
              onOutput: (event) =>
                shown.pass(() => {
                  if (event.type === "output") return toResult(event.bundle, false, slices).then(send);
                  if (event.type !== "clear_output") print(event.type, event.content);
                  return undefined;
                }),
            },
            contextOf(request, response),
          ).finally(() => shown.end());
          if (result.truncated) print("stderr", cutNote(result));
          if (result.display) send(await toResult(result.display, true, slices));
          send({ type: "number_of_executions", execution_count: result.executionCount ?? 1 });
          if (result.errorInfo) send(toErrorEvent(result.errorInfo));
        } catch (error) {
          const isGone = error instanceof ClientError && error.status === 502;
          // A sandbox that ends takes its connections with it: by that the SDK knows it.
          if (isGone && (hasBegun || response.headersSent)) response.destroy();
          if (!response.headersSent || isGone) throw error;
          if (error instanceof ClientError)
            send({ type: "error", name: error.code, value: error.message, traceback: "" });
          else send({ type: "error", name: "InternalError", value: "Internal server error", traceback: "" });
          throw error;
        }
        send({ type: "end_of_execution" });
        response.end();
      },
    }),

    endpoint({
      method: "get",
      path: "/contexts",
      scope: "execute",
      reply: json(),
      handler: async (asked) => (await contextsOf(asked)).map(describe),
    }),

    endpoint({
      method: "post",
      path: "/contexts",
      scope: "execute",
      body: jsonBody(newContext, {}),
      reply: json(),
      handler: async (asked) => {
        const { services, principal, signal, body } = asked;
        refuseOther(body.language);
        const { id } = await running(asked);
        const cwd = toE2b(workspaceFolder(toOwn(body.cwd || E2B_HOME)));
        return describe(
          await services.sessions.namespaces.create(principal.id, id, signal, { name: randomUUID(), cwd }),
        );
      },
    }),

    endpoint({
      method: "post",
      path: "/contexts/:context/restart",
      scope: "execute",
      reply: json(),
      handler: async (asked) => {
        const { services, principal, params, signal } = asked;
        const { id } = sandboxOf(asked);
        const name = await contextNamed(asked, params.context);
        // What runs in it ends with it.
        await services.sessions.interrupt(principal.id, id);
        await services.sessions.namespaces.reset(principal.id, id, signal, name);
        return null;
      },
    }),

    endpoint({
      method: "delete",
      path: "/contexts/:context",
      scope: "execute",
      reply: json(),
      handler: async (asked) => {
        const { services, principal, params, signal } = asked;
        const { id } = sandboxOf(asked);
        const name = await contextNamed(asked, params.context);
        await services.sessions.namespaces.delete(principal.id, id, signal, name);
        return null;
      },
    }),
  ];

  async function running(asked: AskedOfSandbox): Promise<{ readonly id: string }> {
    const { id } = sandboxOf(asked);
    await sandboxes.running(asked.principal.id, id);
    return { id };
  }

  async function contextsOf(asked: AskedOfSandbox): Promise<readonly NamespaceView[]> {
    const { id } = await running(asked);
    return (await asked.services.sessions.namespaces.list(asked.principal.id, id)).filter(
      ({ name }) => name !== COMMANDS,
    );
  }

  /** Of a sandbox that runs. @throws {ClientError} 404, 502 */
  async function contextNamed(asked: AskedOfSandbox, id: string): Promise<string> {
    const name = id === DEFAULT_CONTEXT ? DEFAULT_NAMESPACE : id;
    const known = await contextsOf(asked);
    if (!known.some((context) => context.name === name))
      throw new ClientError("not_found", `Context ${id.slice(0, 100)} not found`);
    return name;
  }
}

function describe({ name, cwd = HOME }: NamespaceView) {
  return { id: name === DEFAULT_NAMESPACE ? DEFAULT_CONTEXT : name, language: "python", cwd: toE2b(cwd) };
}

/** @throws {ClientError} where the request is for another part of the sandbox, or for none. */
function sandboxOf({ request }: Pick<AskedOfSandbox, "request">): { readonly id: string } {
  const address = addressOf(request);
  if (address?.port !== INTERPRETER_PORT) throw new ClientError("endpoint_not_found");
  return address;
}

/** @throws {ClientError} 400 */
function refuseOther(asked: string | null | undefined): void {
  if (!asked || PYTHON.has(asked.toLowerCase())) return;
  const shown = JSON.stringify(asked.slice(0, 100));
  throw new ClientError("invalid_request", `The language ${shown} is not available here: this server runs Python.`);
}
