import { parentPort, workerData } from "node:worker_threads";
import { findUnsafe, type Library } from "./library-check.ts";

const [libraries, isWhole] = workerData as [readonly Library[], boolean];
parentPort?.postMessage(await findUnsafe(libraries, isWhole));
