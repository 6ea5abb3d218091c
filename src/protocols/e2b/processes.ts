import { readFileSync } from "node:fs";
import { z } from "zod";
import { contextOf } from "../../http/caller.ts";
import { HttpError } from "../../http/http-error.ts";
import type { ProtocolEndpoint } from "../../http/protocol.ts";
import { env } from "../../http/validation.ts";
import type { Services } from "../../service/execution-service.ts";
import { ClientError } from "../../shared/errors.ts";
import { cutNote } from "../execution-limits.ts";
import { streaming, unary } from "./connect.ts";
import { deadlineOf } from "./deadline.ts";
import { idOf, ofSandbox } from "./envd.ts";
import { COMMANDS } from "./interpreter.ts";
import { E2B_HOME, toE2b, toOwn } from "./paths.ts";
import type { Ended, Process, Processes } from "./process-table.ts";
import { runInSandbox } from "./run.ts";
import type { Sandboxes } from "./sandboxes.ts";

const PROGRAM = readFileSync(new URL("../../programs/run_command.py", import.meta.url), "utf8");

const MAX_COMMAND_CHARACTERS = 64 * 1024;
const selector = z.object({
  process: z.object({ pid: z.int().optional(), tag: z.string().optional() }, "process must be an object."),
});
const start = z.object({
  process: z.object(
    {
      cmd: z.string("process.cmd must be a string."),
      args: z.array(z.string("process.args must be strings.").max(MAX_COMMAND_CHARACTERS)).default([]),
      envs: env.default({}),
      cwd: z.string("process.cwd must be a string.").optional(),
    },
    "process must be an object.",
  ),
  pty: z.unknown().optional(),
  tag: z.string("tag must be a string.").max(256).optional(),
  stdin: z.boolean().optional(),
});

const NO_INPUT = "A command here has all its input when it starts: this sandbox is a Python without a shell.";

/** `process.Process`: commands, which the table of `run_command.py` has. */
export function processes(sandboxes: Sandboxes, table: Processes): readonly ProtocolEndpoint[] {
  const refuse = (method: string, why: string) =>
    unary(`process.Process/${method}`, "execute", z.looseObject({}), () => {
      throw new HttpError(501, "bad_request", why);
    });
  const processOf = (asked: Parameters<Parameters<typeof unary<typeof selector>>[3]>[0]): Process =>
    table.get(asked.principal.id, idOf(asked), asked.body.process);

  return [
    streaming("process.Process/Start", "execute", start, async (asked, stream) => {
      const { services, request, response, principal, signal, body } = asked;
      const { record } = await ofSandbox(sandboxes, asked);
      if (body.pty != null)
        throw new HttpError(501, "bad_request", "There is no terminal here: this sandbox is a Python without a shell.");
      const config = { ...body.process, ...(body.tag !== undefined && { tag: body.tag }) };
      const process = table.start(principal.id, record.id, config, deadlineOf(request));
      const context = { ...contextOf(request, response), signal: process.signal };
      void run(services, sandboxes, record.id, process, context);
      stream.open({ event: { keepalive: {} } });
      await process.follow(stream, signal);
    }),

    streaming("process.Process/Connect", "execute", selector, async (asked, stream) => {
      await ofSandbox(sandboxes, asked);
      const process = processOf(asked);
      stream.open({ event: { keepalive: {} } });
      await process.follow(stream, asked.signal);
    }),

    unary("process.Process/List", "execute", z.looseObject({}), async (asked) => {
      await ofSandbox(sandboxes, asked);
      const listed = table.list(asked.principal.id, idOf(asked));
      return {
        processes: listed.map(({ pid, config: { tag, ...config } }) => ({
          config,
          pid,
          ...(tag !== undefined && { tag }),
        })),
      };
    }),

    unary("process.Process/SendSignal", "execute", selector.extend({ signal: z.unknown() }), async (asked) => {
      await ofSandbox(sandboxes, asked);
      processOf(asked).kill(asked.body.signal === "SIGNAL_SIGTERM" ? "terminated" : "killed");
      return {};
    }),

    refuse("SendInput", NO_INPUT),
    refuse("StreamInput", NO_INPUT),
    refuse("CloseStdin", NO_INPUT),
    refuse("Update", "There is no terminal here."),
  ];
}

async function run(
  services: Services,
  sandboxes: Sandboxes,
  id: string,
  process: Process,
  context: Parameters<typeof runInSandbox>[3],
): Promise<void> {
  const { cmd, args, envs, cwd } = process.config;
  // As the SDK has bash run a line; else a program with its arguments.
  const line = /(?:^|\/)(?:ba)?sh$/.test(cmd) ? args.at(-1) : [cmd, ...args].map(quoted).join(" ");
  const given = { command: line ?? "", cwd: toE2b(toOwn(cwd || E2B_HOME)), stdin: "" };
  let ended: Ended;
  try {
    const result = await runInSandbox(
      services,
      sandboxes,
      {
        id,
        input: {
          code: `${PROGRAM.trimEnd()}(${JSON.stringify(JSON.stringify(given))})`,
          env: envs,
          namespace: COMMANDS,
        },
        onOutput: (event) => {
          if (event.type === "stdout" || event.type === "stderr") process.print(event.type, event.content);
        },
      },
      context,
    );
    if (result.truncated) process.print("stderr", cutNote(result));
    const answer = result.result.parse({ maxBytes: 32, maxNodes: 1 });
    const status = "value" in answer ? answer.value : null;
    if (process.signal.aborted) ended = process.killed;
    else if (typeof status === "number") ended = { exitCode: status };
    else if (result.status === "error") ended = { exitCode: 1, error: result.error ?? "" };
    else ended = { exitCode: -1, error: result.error ?? "signal: killed" };
  } catch (error) {
    if (process.signal.aborted) ended = process.killed;
    else ended = { failure: error instanceof ClientError ? error : new ClientError("internal") };
  }
  process.end(ended);
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
