import { z } from "zod";
import { complete, inspect, isComplete } from "../../service/editor-help.ts";
import type { ErrorCode } from "../../shared/errors.ts";
import { jsonBody, type Route, reply, route } from "../routes.ts";
import { mimeBundle } from "../schemas.ts";
import { MAX_CODE_CHARACTERS, namespace } from "../validation.ts";

/** Code as it is being written: it may be empty, and need not be whole. */
const code = z
  .string("Code must be a string.")
  .max(MAX_CODE_CHARACTERS, `Code too long. Maximum length: ${MAX_CODE_CHARACTERS} characters.`);
const cursor = z
  .int("Cursor must be a number of characters of the code.")
  .min(0, "Cursor must be a number of characters of the code.")
  .meta({ description: "Characters (code points, as Python counts) before the cursor. Default: all.", example: 6 });
const place = { code, cursor: cursor.optional(), namespace: namespace.optional() };

const completeBody = z.object(place);
const inspectBody = z.object({
  ...place,
  detail: z
    .literal([0, 1], "Detail must be 0 or 1.")
    .optional()
    .meta({ description: "1: with the source, where it is known." }),
});
const isCompleteBody = z.object({ code });

const match = z
  .looseObject({
    text: z.string().meta({ example: "path" }),
    type: z.string().meta({
      description:
        "`function`, `class`, `module`, `property`, `instance`, `keyword`, `param`, `dict key`, `path` or `magic`.",
      example: "module",
    }),
  })
  .meta({ id: "Match" });

/** What code would meet that asks for an answer. */
const ASKING: readonly ErrorCode[] = [
  "session_not_found",
  "session_occupied",
  "session_queue_full",
  "session_busy",
  "session_unloadable",
  "session_damaged",
  "session_environment_changed",
  "session_environment_gone",
  "not_found",
  "starting",
  "environment_broken",
  "queue_full",
  "principal_queue_full",
  "store_unavailable",
  "server_stopping",
];

const DESCRIPTION =
  "Nothing of the code is executed, no property or `__repr__` of its objects either, so not all is known. It counts as no execution, and the session stays as it is. It waits a second for what runs.";

/** What editors ask while code is written. */
export const editorRoutes: readonly Route[] = [
  route({
    method: "post",
    path: "/api/sessions/:id/complete",
    scope: "execute",
    tag: "Sessions",
    operation: "complete",
    summary: "Say what may stand where an editor's cursor is",
    description: DESCRIPTION,
    body: jsonBody(completeBody, { code: "os.pat", cursor: 6 }),
    reply: reply("What may stand there, the best first, in place of the characters from `start` to `end`.", {
      matches: z.array(match),
      start: z.int().min(0),
      end: z.int().min(0),
      truncated: z.boolean().meta({ description: "There are more than these 500." }),
    }),
    errors: ASKING,
    handler: async ({ services, principal, params, body, signal }) => {
      const { code, cursor, namespace } = body;
      const editor = { principal, session: params.id, namespace, signal };
      const { isCut, ...found } = await complete(services, editor, { code, cursor });
      return { ...found, truncated: isCut };
    },
  }),

  route({
    method: "post",
    path: "/api/sessions/:id/inspect",
    scope: "execute",
    tag: "Sessions",
    operation: "inspect",
    summary: "Describe what an editor's cursor is on",
    description: DESCRIPTION,
    body: jsonBody(inspectBody, { code: "print(", cursor: 6 }),
    reply: reply("Signature, type and documentation.", { found: z.boolean(), data: mimeBundle }),
    errors: ASKING,
    handler: async ({ services, principal, params, body, signal }) => {
      const { namespace, ...asked } = body;
      const text = await inspect(services, { principal, session: params.id, namespace, signal }, asked);
      return { found: text !== null, data: text === null ? {} : { "text/plain": text } };
    },
  }),

  route({
    method: "post",
    path: "/api/is-complete",
    scope: "execute",
    tag: "Running code",
    operation: "isComplete",
    summary: "Say whether code is whole, or its next line is to be asked for",
    description: "As IPython decides it. The code is read and not executed.",
    body: jsonBody(isCompleteBody, { code: "if x:" }),
    reply: reply("Whether it is.", {
      status: z.enum(["complete", "incomplete", "invalid", "unknown"]),
      indent: z.string().optional().meta({ description: "What the next line begins with.", example: "    " }),
    }),
    errors: ["starting", "environment_broken", "queue_full", "principal_queue_full", "server_stopping"],
    handler: async ({ services, principal, body, signal }) =>
      await isComplete(services, { principal, signal }, body.code),
  }),
];
