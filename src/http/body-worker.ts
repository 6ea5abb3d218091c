/** The thread in which large bodies are parsed: `body.ts` has the other end. */
import { parentPort } from "node:worker_threads";
import { parseOrRefuse, type RawBody } from "./body-parsing.ts";

parentPort?.on("message", (body: RawBody) => parentPort?.postMessage(parseOrRefuse(body)));
