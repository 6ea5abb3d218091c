import type { JsonText } from "../shared/json/json-text.ts";
import { TaskThread } from "../shared/task-thread.ts";
import type { Tool } from "./definitions.ts";
import { type Checked, firstMismatch, type SchemaTask } from "./schema-match.ts";

/** A check that takes longer is given up, ms: patterns and references can be made to take for ever. */
const MAX_CHECK_MS = 2000;
/** Up to here, characters of the schema times bytes of the value, a check in place takes a few ms. */
const MAX_INLINE_COST = 400_000;
/**
 * The validator writes the whole path of each schema, three characters for some of one: with long names these grow with the square of the
 * schema, and V8 tells paths of 16,384 characters and more apart by comparing them.
 */
const MAX_INLINE_SCHEMA_CHARACTERS = 4 * 1024;

/** One thread for each principal that has such schemas: what one of them writes delays no other. */
const threads = new Map<string, TaskThread<SchemaTask, Checked>>();

/** Tools whose schema has taken too long once: it is not tried again for them. */
const endless = new WeakSet<Tool>();

/**
 * Compares the arguments of a call with the tool's schema.
 *
 * @returns what does not fit, in words that follow `name()`; null: it fits.
 */
export async function mismatch(principal: string, tool: Tool, input: JsonText): Promise<string | null> {
  const { parameters: schema } = tool;
  if (schema === null) return null;
  const task = { schema, value: input.toString() };
  if (isQuick(tool, input.bytes.length)) return firstMismatch(task).mismatch;
  if (endless.has(tool)) return ENDLESS;
  try {
    return (await threadOf(principal).run(task)).mismatch;
  } catch {
    endless.add(tool);
    return ENDLESS;
  }
}

/** Whether a check of so many bytes is made in place. */
export function isQuick({ isPlain, schemaCharacters }: Tool, bytes: number): boolean {
  return isPlain && schemaCharacters <= MAX_INLINE_SCHEMA_CHARACTERS && schemaCharacters * bytes <= MAX_INLINE_COST;
}

const ENDLESS = "has a schema that takes too long to check";

function threadOf(principal: string): TaskThread<SchemaTask, Checked> {
  let thread = threads.get(principal);
  if (!thread) {
    thread = new TaskThread({
      program: new URL("schema-worker.ts", import.meta.url),
      lost: () => new Error(ENDLESS),
      timeoutMs: MAX_CHECK_MS,
      idleMs: 60_000,
    });
    threads.set(principal, thread);
  }
  return thread;
}
