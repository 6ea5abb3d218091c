/** Compares values with schemas that can take long: a thread of its own, which is ended when one does. */
import { parentPort } from "node:worker_threads";
import { firstMismatch, type SchemaTask } from "./schema-match.ts";

parentPort?.on("message", (task: SchemaTask) => parentPort?.postMessage(firstMismatch(task)));
