import type { Request, Response } from "express";
import { HttpError } from "../../http/http-error.ts";
import type { Protocol, ProtocolOptions } from "../../http/protocol.ts";
import type { ClientError } from "../../shared/errors.ts";
import { addressOf, credentialOf, INTERPRETER_PORT, isSignedFile } from "./address.ts";
import { isConnect, sendConnectError } from "./connect.ts";
import { controlPlane } from "./control-plane.ts";
import { toError } from "./descriptions.ts";
import { envd } from "./envd.ts";
import { interpreter } from "./interpreter.ts";
import { Processes } from "./process-table.ts";
import { processes } from "./processes.ts";
import { Sandboxes } from "./sandboxes.ts";
import { Watchers } from "./watchers.ts";

/** Of the control plane, what E2B has at the root of its API. */
const CONTROL = /^(?:\/v[23])?\/(?:sandboxes|snapshots|templates|volumes|secrets)(?:\/|$)/;

const EXECUTIONS: ReadonlySet<string> = new Set(["/execute", "/process.process/start"]);

/** https://e2b.dev: its SDKs by E2B_API_URL and E2B_SANDBOX_URL, or by the names of hosts. */
export function e2b({ services, count }: ProtocolOptions): Protocol {
  const sandboxes = new Sandboxes(services);
  const watchers = new Watchers();
  const table = new Processes();
  return {
    name: "e2b",
    owns: (request) => CONTROL.test(request.path) || addressOf(request) !== null || isSignedFile(request),
    credentialOf,
    readsBody: (request) => addressOf(request) === null || pathOf(request) !== "/files",
    executes: (request) => request.method === "POST" && EXECUTIONS.has(pathOf(request)) && addressOf(request) !== null,
    endpoints: [
      ...controlPlane(sandboxes, services.config, count),
      // A sandbox's token is for what is at its address, and these look at no other sandbox.
      ...[...interpreter(sandboxes), ...envd(sandboxes, watchers), ...processes(sandboxes, table)].map((inside) => ({
        ...inside,
        takesDerived: true,
      })),
    ],
    sendError: (response, error, request) => {
      const isFile = error.code === "too_large" && request.path === "/files" && addressOf(request) !== null;
      const most = services.config.MAX_FILE_SIZE;
      const message = `File too large: at most ${most} bytes (the server's MAX_FILE_SIZE).`;
      sendError(response, isFile ? new HttpError(413, "file_too_large", message) : error, request);
    },
    close: () => {
      watchers.closeAll();
      table.killAll();
    },
  };
}

/** As Express compares paths: in small letters, without a slash at the end. */
function pathOf({ path }: Request): string {
  return (path.endsWith("/") ? path.slice(0, -1) : path).toLowerCase();
}

function sendError(response: Response, error: ClientError, request: Request): void {
  const { status, message } = error;
  const address = addressOf(request);
  if (address?.port === INTERPRETER_PORT) response.status(status).type("text/plain").send(message);
  else if (address !== null && isConnect(request)) sendConnectError(response, error, request);
  else response.status(status).json(toError(error));
}
