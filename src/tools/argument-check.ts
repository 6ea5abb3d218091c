import type { JsonText } from "../shared/json/json-text.ts";
import { TaskThread } from "../shared/task-thread.ts";
import type { Tool } from "./definitions.ts";
import { type Checked, firstMismatch, type SchemaTask } from "./schema-match.ts";

/** A check that takes longer is given up, ms: patterns and references can be made to take for ever. */
const MAX_CHECK_MS = 2000;
/** Up to here, characters of the schema times bytes of the value, a check in place costs less than a trip to the thread. */
const MAX_INLINE_COST = 4_000_000;

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
  const { parameters: schema, isPlain, schemaCharacters } = tool;
  if (schema === null) return null;
  const task = { schema, value: input.toString() };
  if (isPlain && schemaCharacters * input.bytes.length <= MAX_INLINE_COST) return firstMismatch(task).mismatch;
  if (endless.has(tool)) return ENDLESS;
  try {
    return (await threadOf(principal).run(task)).mismatch;
  } catch {
    endless.add(tool);
    return ENDLESS;
  }
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
