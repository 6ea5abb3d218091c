/** The thread in which large bodies of answers are taken apart: `answers.ts` has the other end. */
import { parentPort } from "node:worker_threads";
import { splitAnswers } from "./answers.ts";

parentPort?.on("message", (body: Uint8Array) => parentPort?.postMessage(splitAnswers(body)));
