import { posix } from "node:path";
import type { Request } from "express";
import coerce from "semver/functions/coerce.js";
import satisfies from "semver/functions/satisfies.js";
import { contextOf } from "../../http/caller.ts";
import { endpoint, json, type Protocol, type ProtocolOptions } from "../../http/protocol.ts";
import type { RouteServices } from "../../http/routes.ts";
import { MAX_TIMEOUT_MS } from "../../http/validation.ts";
import { ClientError } from "../../shared/errors.ts";
import { isObject } from "../../shared/json/json-object.ts";
import { MAX_PATH_BYTES } from "../../workspaces/paths.ts";
import { argumentsOf, jsonObject, refused, shown } from "../bodies.ts";
import { isOutOfTime } from "../execution-limits.ts";
import { type Program, type ProgramRun, runProgram, sandboxPath } from "../program.ts";

/** The second is where its public server had it, which clients have written down. */
const ROOTS = ["/api/v2", "/api/v2/piston"];
const ALIASES = ["py", "py3", "python3"];
/** As many as semver takes of one version. Of a range it reads all that it is given. */
const MAX_VERSION_CHARACTERS = 256;
const ENCODINGS = ["base64", "hex", "utf8"] as const;

interface Runtime {
  readonly language: string;
  readonly version: string;
  readonly aliases: readonly string[];
  readonly environment: string;
}

/** https://github.com/engineer-man/piston/blob/master/docs/api-v2.md */
export function piston({ services }: ProtocolOptions): Protocol {
  return {
    name: "piston",
    owns: ({ path }) => path.startsWith("/api/v2/"),
    credentialOf,
    executes: ({ method, path }) => method === "POST" && ROOTS.some((root) => path === `${root}/execute`),
    endpoints: ROOTS.flatMap((root) => [
      endpoint({
        method: "get",
        path: `${root}/runtimes`,
        scope: "any key",
        reply: json(),
        handler: () => runtimes(services).map(({ language, version, aliases }) => ({ language, version, aliases })),
      }),
      endpoint({
        method: "post",
        path: `${root}/execute`,
        scope: "execute",
        body,
        reply: json(),
        handler: async ({ request, response, body }) => {
          const { runtime, program } = jobOf(services, body);
          let output = "";
          const run = await runProgram(services, program, contextOf(request, response), {
            onOutput: (event) => {
              if (event.type === "stdout" || event.type === "stderr") output += event.content;
            },
          });
          return { run: stageOf(run, output), language: runtime.language, version: runtime.version };
        },
      }),
      endpoint({
        method: "get",
        path: `${root}/packages`,
        scope: "any key",
        reply: json(),
        handler: () =>
          runtimes(services).map(({ language, version }) => ({ language, language_version: version, installed: true })),
      }),
      endpoint({
        method: "post",
        path: `${root}/packages`,
        scope: "any key",
        body,
        reply: json(),
        // It is installed already.
        handler: ({ body }) => {
          const { language, version } = packageOf(services, body);
          return { language, version };
        },
      }),
      endpoint({
        method: "delete",
        path: `${root}/packages`,
        scope: "any key",
        body,
        handler: ({ body }) => {
          const { language, version } = packageOf(services, body);
          throw refused(`${language}-${version} is part of this server and cannot be uninstalled`);
        },
      }),
    ]),
    sendError: (response, { status, message }) => response.status(status).json({ message }),
  };
}

/** Members are checked by hand: the texts are Piston's, and they stand in its order. */
const body = jsonObject("requests must be of type application/json");

/** Piston's public server took a token without a scheme. */
function credentialOf(request: Request): { kind: "key"; key: string } | undefined {
  const given = request.get("authorization");
  return given === undefined || given.includes(" ") ? undefined : { kind: "key", key: given };
}

/** One for each environment; the default one is `python`, and each has a name of its own. */
function runtimes({ packages: { environments, defaultEnvironment } }: RouteServices): readonly Runtime[] {
  const all = environments.list().map(({ name, image }) => ({ environment: name, version: image.pythonVersion }));
  const named = all.map((one) => ({ ...one, language: `python-${one.environment}`, aliases: [] }));
  const { pythonVersion: version } = environments.get(defaultEnvironment).image;
  return [{ language: "python", version, aliases: ALIASES, environment: defaultEnvironment }, ...named];
}

function runtimeOf(services: RouteServices, language: string, version: string): Runtime | undefined {
  if (version.length > MAX_VERSION_CHARACTERS) return undefined;
  return runtimes(services).find(
    (one) => (one.language === language || one.aliases.includes(language)) && satisfies(plainVersion(one), version),
  );
}

/** A version that is not released yet is that version to who asks for it. */
function plainVersion({ version }: Runtime): string {
  return coerce(version)?.version ?? version;
}

function packageOf(services: RouteServices, { language, version }: Record<string, unknown>): Runtime {
  const isAsked = typeof language === "string" && typeof version === "string";
  const runtime = isAsked ? runtimeOf(services, language, version) : undefined;
  if (runtime !== undefined) return runtime;
  throw new ClientError("not_found", `Requested package ${shown(language)}-${shown(version)} does not exist`);
}

/** @throws {ClientError} 400 in Piston's words. */
export function jobOf(
  services: RouteServices,
  body: Record<string, unknown>,
): { readonly runtime: Runtime; readonly program: Program } {
  const { language, version, files, stdin, args } = body;
  if (!language || typeof language !== "string") throw refused("language is required as a string");
  if (!version || typeof version !== "string") throw refused("version is required as a string");
  if (!Array.isArray(files)) throw refused("files is required as an array");
  for (const [i, file] of files.entries()) {
    if (!isObject(file) || typeof file.content !== "string")
      throw refused(`files[${i}].content is required as a string`);
    if (file.name != null && typeof file.name !== "string") throw refused(`files[${i}].name must be a string`);
  }
  const runtime = runtimeOf(services, language, version);
  if (runtime === undefined) throw refused(`${shown(language)}-${shown(version)} runtime is unknown`);
  const read = files.map(readFile);
  // Of two of one name the later one is there.
  const written = new Map(read.map(({ name, content }) => [pathOf(name), content]));
  const main = read.find(({ encoding }) => encoding === "utf8");
  if (main === undefined) throw refused("files must include at least one utf8 encoded file");
  for (const kind of ["memory_limit", "timeout", "cpu_time"] as const)
    for (const stage of ["compile", "run"]) checkLimit(`${stage}_${kind}`, kind, body);
  const given = argumentsOf(args);
  if (stdin != null && typeof stdin !== "string") throw refused("stdin must be a string");
  const program = {
    code: (written.get(pathOf(main.name)) as Buffer).toString("utf8"),
    file: main.name,
    args: given,
    // Piston's programs read whole lines.
    stdin: `${stdin ?? ""}`.endsWith("\n") ? (stdin as string) : `${stdin ?? ""}\n`,
    files: written,
    timeoutMs: (body.run_timeout as number | undefined) || undefined,
    environment: runtime.environment,
  };
  return { runtime, program };
}

function readFile({ name, content, encoding }: { name?: string; content: string; encoding?: unknown }, index: number) {
  const known = ENCODINGS.find((one) => one === encoding) ?? "utf8";
  return { name: name || `file${index}.code`, content: Buffer.from(content, known), encoding: known };
}

/** Where a file of the client's is: below the folder in which the program runs, whatever its name begins with. */
function pathOf(name: string): string {
  // Before it is normalised, see `resolvedPath`.
  if (name.length > MAX_PATH_BYTES) throw refused(`File path "${shown(name)}" is too long`);
  const relative = posix.normalize(`./${name}`);
  if (relative === ".." || relative.startsWith("../"))
    throw refused(`File path "${shown(name)}" tries to escape parent directory: ${shown(relative)}`);
  return sandboxPath(relative);
}

function checkLimit(name: string, kind: "memory_limit" | "timeout" | "cpu_time", body: Record<string, unknown>): void {
  const value = body[name];
  if (!value) return;
  if (typeof value !== "number") throw refused(`If specified, ${name} must be a number`);
  // What memory a program may have is the server's setting.
  if (kind === "memory_limit") return;
  if (value > MAX_TIMEOUT_MS) throw refused(`${name} cannot exceed the configured limit of ${MAX_TIMEOUT_MS}`);
  if (value < 0) throw refused(`${name} must be non-negative`);
}

/** The `run` of a reply. Its statuses are those of `isolate`: RE, SG, TO. */
export function stageOf({ result, exitCode }: ProgramRun, output: string) {
  const { stdout, stderr, status, executionTimeMs, cpuTimeMs, truncated } = result;
  const stopped = isOutOfTime(result);
  const failed = exitCode === null ? (stopped ? "TO" : "SG") : exitCode === 0 ? null : "RE";
  const message = stopped
    ? `Time limit exceeded${status === "timeout" ? " (wall clock)" : ""}`
    : exitCode === null
      ? "Caught fatal signal 9"
      : exitCode === 0
        ? null
        : `Exited with error status ${exitCode}`;
  return {
    stdout,
    stderr,
    output,
    code: exitCode,
    signal: exitCode === null ? "SIGKILL" : null,
    message: truncated ? [message, "output was cut"].filter((text) => text !== null).join("; ") : message,
    status: failed,
    cpu_time: cpuTimeMs ?? executionTimeMs,
    wall_time: executionTimeMs,
    memory: null,
  };
}
