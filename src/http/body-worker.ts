/** The thread in which large bodies are parsed: `body.ts` has the other end. */
import { parentPort } from "node:worker_threads";
import { parseRawBody, type RawBody, type Refusal, refusalOf } from "./body-parsing.ts";

/** `refused`: what was wrong with it, for the other end to throw. */
export type Parsed =
  | ({ readonly id: number } & ReturnType<typeof parseRawBody>)
  | { readonly id: number; readonly refused: Refusal; readonly message: string };

parentPort?.on("message", ({ id, body }: { id: number; body: RawBody }) => {
  let answer: Parsed;
  try {
    answer = { id, ...parseRawBody(body) };
  } catch (error) {
    answer = { id, refused: refusalOf(error), message: (error as Error).message };
  }
  parentPort?.postMessage(answer);
});
