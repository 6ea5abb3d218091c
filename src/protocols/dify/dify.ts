import type { Request, Response } from "express";
import { contextOf } from "../../http/caller.ts";
import { endpoint, json, type Protocol, type ProtocolOptions } from "../../http/protocol.ts";
import type { RouteServices } from "../../http/routes.ts";
import type { ClientError } from "../../shared/errors.ts";
import { jsonObject, refused } from "../bodies.ts";
import { withCutNote } from "../execution-limits.ts";
import { type ProgramRun, runProgram } from "../program.ts";

const ROOT = "/v1/sandbox";
const LANGUAGE = "python3";
/** Dify's own sandbox answers this with 400, and with 200 all else that it refuses. */
const UNSUPPORTED = "unsupported language";
/** What its bootstrap ends with after an exception. */
const EXCEPTION_CODE = 255;

/** The service that runs code nodes and templates of Dify: https://github.com/langgenius/dify-sandbox */
export function dify({ services }: ProtocolOptions): Protocol {
  return {
    name: "dify",
    owns: ({ path }) => path.startsWith(`${ROOT}/`),
    executes: ({ method, path }) => method === "POST" && path === `${ROOT}/run`,
    endpoints: [
      endpoint({
        method: "post",
        path: `${ROOT}/run`,
        scope: "execute",
        body,
        reply: json(),
        handler: async ({ request, response, body }) => {
          checkLanguage(required(body, "Language"));
          const code = required(body, "Code");
          const preload = textOf(body, "preload");
          const run = await runProgram(
            services,
            {
              code: preload.trim() === "" ? code : `${preload}\n${code}`,
              file: "main.py",
              // Dify asks for the network always: which hosts that means is the server's setting.
              network: isTrue(body.enable_network) ? undefined : { allowOut: [] },
            },
            contextOf(request, response),
          );
          return success(dataOf(run));
        },
      }),
      endpoint({
        method: "get",
        path: `${ROOT}/dependencies`,
        scope: "any key",
        reply: json(),
        handler: async ({ request, principal }) => await dependencies(services, request, principal.id),
      }),
      endpoint({
        method: "get",
        path: `${ROOT}/dependencies/refresh`,
        scope: "any key",
        reply: json(),
        handler: async ({ request, principal }) => await dependencies(services, request, principal.id),
      }),
      endpoint({
        method: "post",
        path: `${ROOT}/dependencies/update`,
        scope: "any key",
        body,
        reply: json(),
        // Environments are built when the server starts: there is nothing to bring up to date.
        handler: ({ body }) => {
          checkLanguage(required(body, "Language"));
          return success({});
        },
      }),
    ],
    sendError,
  };
}

const body = jsonObject();

async function dependencies({ packages }: RouteServices, request: Request, principal: string) {
  checkLanguage(required(request.query, "Language"));
  const list = await packages.packagesOf(principal, packages.defaultEnvironment);
  return success({ dependencies: list.map(({ name, version }) => ({ name, version })) });
}

/** @throws {ClientError} in the words of the library that the sandbox of Dify checks with. */
function required(values: Record<string, unknown>, member: "Language" | "Code"): string {
  const text = textOf(values, member.toLowerCase());
  if (text !== "") return text;
  throw refused(`Key: '${member}' Error:Field validation for '${member}' failed on the 'required' tag`);
}

function textOf(values: Record<string, unknown>, name: string): string {
  const value = values[name] ?? "";
  if (typeof value !== "string") throw refused(`json: cannot unmarshal ${name}: it must be a string`);
  return value;
}

function isTrue(value: unknown): boolean {
  if (value === undefined || value === null || value === false || value === "false") return false;
  if (value === true || value === "true") return true;
  throw refused("json: cannot unmarshal enable_network: it must be true or false");
}

function checkLanguage(language: string): void {
  if (language === LANGUAGE) return;
  // The sandbox of Dify knows this one, so its clients do not expect a status that says otherwise: they would not show the message.
  if (language === "nodejs") throw refused("unsupported language: this server runs python3 alone");
  throw refused(UNSUPPORTED);
}

function success(data: object) {
  return { code: 0, message: "success", data };
}

function dataOf({ result, exitCode }: ProgramRun) {
  const { stdout, status, error } = result;
  const stderr = withCutNote(result.stderr, result);
  const code =
    exitCode === null ? -1 : status === "error" && !isExit(result.errorInfo?.type) ? EXCEPTION_CODE : exitCode;
  const why = exitCode !== null ? "" : status === "timeout" ? "error: timeout\n" : `error: ${error}\n`;
  return {
    stdout,
    stderr,
    error: code === 0 ? "" : `process exited with code ${code}\n${why}${stderr}`,
    exit_code: code,
  };
}

function isExit(type: string | undefined): boolean {
  return type === "SystemExit" || type === "ProcessExit";
}

/** Dify shows the message of what comes with 200; of another status it says that the service does not run. */
function sendError(response: Response, error: ClientError): void {
  const { status, message } = error;
  const sent = { code: -status, message, data: null };
  if (status === 429 || status === 503) response.status(503).json({ ...sent, code: -503 });
  else if (status === 400 || status === 413 || status === 415)
    response.status(message === UNSUPPORTED ? 400 : 200).json({ ...sent, code: -400 });
  else response.status(status).json(sent);
}
