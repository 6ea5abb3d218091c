import { EVERY_PROGRAM } from "./programs.ts";
import { type WrkResult, wrk } from "./wrk.ts";

export interface LoadOptions {
  readonly url: string;
  /** Index into `EVERY_PROGRAM`. */
  readonly program: number;
  readonly connections: number;
  readonly seconds: number;
  /** Further fields of each request's body. */
  readonly body?: Readonly<Record<string, unknown>>;
  /** Look at each reply, which takes the generator some processor time; default: at the status alone. */
  readonly checked?: boolean;
}

export type LoadResult = WrkResult;

/**
 * Sends one program over and over.
 *
 * @throws if a single reply was wrong or missing: a fast wrong answer is a failure.
 */
export async function load({ url, program, connections, seconds, body, checked }: LoadOptions): Promise<LoadResult> {
  const { code, stdout } = EVERY_PROGRAM[program] as (typeof EVERY_PROGRAM)[number];
  const result = await wrk({
    url,
    connections,
    seconds,
    body: { code, ...body },
    ...(checked && { expects: `"stdout":${JSON.stringify(stdout)}` }),
  });
  if (result.refused > 0 || result.broken > 0) throw new Error(`${result.refused} refused, ${result.broken} broken`);
  return result;
}
