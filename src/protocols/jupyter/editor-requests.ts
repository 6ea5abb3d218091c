/** What editors ask of a kernel while code is written. */
import { z } from "zod";
import { MAX_CODE_CHARACTERS, parseBody } from "../../http/validation.ts";
import * as editor from "../../service/editor-help.ts";
import { lengthOf } from "../../service/editor-help.ts";
import { ClientError } from "../../shared/errors.ts";
import type { Asked } from "./live-kernel.ts";

const code = z
  .string("Code must be a string.")
  .max(MAX_CODE_CHARACTERS, `Code too long. Maximum length: ${MAX_CODE_CHARACTERS} characters.`);
/** Code points. Some clients count as JavaScript does, and come out behind the end. */
const cursorPos = z.int("Cursor_pos must be a number.").min(0, "Cursor_pos must be a number of characters.").nullish();

const completeContent = z.object({ code, cursor_pos: cursorPos });
const inspectContent = z.object({
  code,
  cursor_pos: cursorPos,
  detail_level: z.literal([0, 1], "Detail_level must be 0 or 1.").optional().default(0),
});
const isCompleteContent = z.object({ code });

/** `complete_request`. @returns the content of its reply. */
export async function complete(asked: Asked): Promise<object> {
  const content = parseBody(completeContent, asked.request.content);
  const cursor = cursorOf(content);
  const nothing: editor.Completion = { matches: [], start: cursor, end: cursor, isCut: false };
  const { services } = asked.kernel;
  const found = await orWhileBusy(nothing, editor.complete(services, placeOf(asked), { code: content.code, cursor }));
  const { matches, start, end } = found;
  return {
    status: "ok",
    matches: matches.map(({ text }) => text),
    cursor_start: start,
    cursor_end: end,
    // Where JupyterLab and VS Code find what each is.
    metadata: { _jupyter_types_experimental: matches.map(({ text, type }) => ({ text, type, start, end })) },
  };
}

/** `inspect_request`. @returns the content of its reply. */
export async function inspect(asked: Asked): Promise<object> {
  const content = parseBody(inspectContent, asked.request.content);
  const { code, detail_level: detail } = content;
  const question = { code, cursor: cursorOf(content), detail };
  const text = await orWhileBusy(null, editor.inspect(asked.kernel.services, placeOf(asked), question));
  return { status: "ok", found: text !== null, data: text === null ? {} : { "text/plain": text }, metadata: {} };
}

/** `is_complete_request`. @returns the content of its reply. */
export async function isComplete(asked: Asked): Promise<object> {
  const { code } = parseBody(isCompleteContent, asked.request.content);
  return await orWhileBusy({ status: "unknown" }, editor.isComplete(asked.kernel.services, placeOf(asked), code));
}

/** Where the server has no room for it, or something else runs in the session, nothing is known: no error that an editor would show. */
async function orWhileBusy<T>(nothing: T, answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof ClientError && error.status !== 404) return nothing;
    throw error;
  }
}

function placeOf({ kernel, principal, signal }: Asked): editor.EditorPlace {
  return { principal, session: kernel.id, signal };
}

function cursorOf(content: { readonly code: string; readonly cursor_pos?: number | null | undefined }): number {
  const length = lengthOf(content.code);
  return Math.min(content.cursor_pos ?? length, length);
}
