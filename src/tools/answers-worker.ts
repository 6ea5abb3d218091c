/** The thread in which large bodies of answers are taken apart: `answers.ts` has the other end. */
import { parentPort } from "node:worker_threads";
import { type AnswersTask, splitAnswers } from "./answers.ts";

parentPort?.on("message", (task: AnswersTask) => parentPort?.postMessage(splitAnswers(task)));
