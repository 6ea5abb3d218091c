import { readFileSync } from "node:fs";
import { z } from "zod";
import { PackageError } from "../../packages/package-error.ts";
import type { PackageInfo } from "../../packages/package-set.ts";
import { normaliseName } from "../../packages/pep/requirements.ts";
import { type Caller, recordInstall, runInternal, type Services } from "../../service/execution-service.ts";
import { ClientError } from "../../shared/errors.ts";
import { sendJson } from "../json-reply.ts";
import { toReply } from "../result-reply.ts";
import { bare, jsonBody, type Route, reply, route, sentByHandler } from "../routes.ts";
import { bytes, errorCode, execReply, ms, timestamp } from "../schemas.ts";
import { environment } from "../validation.ts";

const MAX_NAME_CHARACTERS = 100;
/** Names that the compatibility contract refuses. Safety does not rest on this: the sandbox stops what they could do. */
const REFUSED = new Set(["os", "subprocess", "socket", "urllib3", "requests-oauthlib"]);
const LIST_PACKAGES = readFileSync(new URL("../../programs/list_packages.py", import.meta.url), "utf8");
const LIST_TIMEOUT_MS = 30_000;

/** Texts and their order are part of the HTTP contract. */
export const packageName = z
  .string({
    error: ({ input }) =>
      input === undefined || input === null || input === ""
        ? 'No package name provided. Please include "package" in the request body.'
        : "Package name must be a string.",
  })
  .min(1, 'No package name provided. Please include "package" in the request body.')
  .regex(
    /^[a-zA-Z0-9._-]+(==[a-zA-Z0-9.!+_-]+)?$/,
    "Invalid package name format. Use only letters, numbers, dots, hyphens, and underscores.",
  )
  .max(MAX_NAME_CHARACTERS, `Package name too long. Maximum length: ${MAX_NAME_CHARACTERS} characters.`)
  .meta({ description: "Name of a package, with an optional `==version`.", example: "humanize==4.9.0" });

/** Body of `POST /api/install-package`. */
const installBody = z.object({ package: packageName, environment: environment.optional() });

const packageList = execReply.extend({
  result: z.looseObject({
    python_version: z.string(),
    installed_packages: z.array(z.string()),
    loaded_modules: z.array(z.string()),
    total_packages: z.int(),
  }),
});

/** `POST /api/install-package`, `GET /api/packages` and `GET /api/environments`. */
export const packageRoutes: readonly Route[] = [
  route({
    method: "post",
    path: "/api/install-package",
    scope: "packages",
    tag: "Packages and state",
    operation: "installPackage",
    summary: "Install a package for later executions",
    body: jsonBody(installBody, { package: "humanize==4.9.0" }),
    reply: bare(
      "It is installed, or `success` is false and `error` says why not.",
      z.looseObject({
        success: z.boolean().meta({ description: "False if the package cannot be installed; `error` says why." }),
        message: z.string().optional(),
        installed: z.array(z.looseObject({ name: z.string(), version: z.string() })).optional(),
        error: z.string().optional(),
        code: errorCode.optional(),
        timestamp,
      }),
    ),
    errors: ["package_refused", "packages_busy", "unknown_environment", "starting", "store_unavailable"],
    handler: async ({ services, principal, caller, body, signal }) => {
      const now = () => new Date().toISOString();
      try {
        const added = await installPackage(services, principal.id, caller, body, signal);
        const installed = added.map(({ name, version }) => ({ name, version }));
        return { success: true, message: "Package installed successfully", installed, timestamp: now() };
      } catch (error) {
        if (!(error instanceof PackageError)) throw error;
        return { success: false, error: error.message, code: error.code, timestamp: now() };
      }
    },
  }),

  route({
    method: "get",
    path: "/api/packages",
    scope: "execute",
    tag: "Packages and state",
    operation: "listPackages",
    summary: "List the packages that code can import",
    query: z.object({ environment: environment.optional().meta({ description: "Default: the server's." }) }),
    reply: sentByHandler("An execution whose result is the list.", packageList),
    errors: [
      "invalid_request",
      "unknown_environment",
      "starting",
      "environment_broken",
      "queue_full",
      "principal_queue_full",
    ],
    handler: async ({ services, principal, response, query, signal }) => {
      const result = await runInternal(
        services,
        principal,
        {
          code: LIST_PACKAGES,
          environment: query.environment,
          timeout: LIST_TIMEOUT_MS,
          files: "none",
        },
        signal,
      );
      sendJson(response, toReply(result));
    },
  }),

  route({
    method: "get",
    path: "/api/environments",
    scope: "execute",
    tag: "Packages and state",
    operation: "listEnvironments",
    summary: "List environments and what they hold",
    reply: reply("The environments.", {
      default: z.string(),
      environments: z.array(
        z.looseObject({
          name: z.string(),
          pythonVersion: z.string(),
          packages: z.array(
            z.looseObject({
              name: z.string(),
              version: z.string(),
              source: z.string(),
              license: z.string().nullable(),
              sha256: z.string(),
              lockStatus: z
                .enum(["same", "other-version", "other-build", "not-listed"])
                .meta({ description: "How the file stands to Pyodide's own lock file." }),
              compiled: z.boolean(),
            }),
          ),
          warnings: z.array(z.string()),
          problem: z
            .string()
            .nullable()
            .meta({
              description:
                "Why sandboxes of it, or of what the caller has installed on top of it, do not start; such requests are 503 " +
                "`environment_broken` until it is tried again. Null: they do.",
            }),
          imageBytes: bytes,
          archiveBytes: bytes,
          builtAt: z.string(),
          buildMs: ms,
        }),
      ),
    }),
    errors: [],
    handler: async ({ services, principal }) => await listEnvironments(services, principal.id),
  }),
];

/**
 * Installs a package for a principal, and puts it on record.
 *
 * @returns what came with it. @throws {ClientError} 403 `package_refused`. @throws {PackageError} if it is not available, saying why.
 */
export async function installPackage(
  services: Services,
  principal: string,
  caller: Caller,
  { package: wanted, environment = services.packages.defaultEnvironment }: z.output<typeof installBody>,
  signal: AbortSignal,
): Promise<readonly PackageInfo[]> {
  const [name = ""] = wanted.split("==", 1);
  const record = (error: string | null) => recordInstall(services, caller, wanted, error);
  if (REFUSED.has(normaliseName(name))) {
    record("refused");
    throw new ClientError("package_refused", `Package "${wanted}" is not allowed for security reasons.`);
  }
  try {
    const { added } = await services.packages.install(principal, environment, wanted, signal);
    record(null);
    return added;
  } catch (error) {
    if (error instanceof PackageError) record(error.code);
    throw error;
  }
}

/** The environments as a principal has them. */
export async function listEnvironments(services: Services, principal: string) {
  const { packages } = services;
  const { environments } = packages;
  const { broken } = services.executor.pool.status();
  const problems = new Map(broken.map(({ environment, reason }) => [environment, reason]));
  /** Of the environment, or of the caller's own on top of it. */
  const problemOf = async (name: string) =>
    problems.size === 0
      ? null
      : (problems.get(name) ?? problems.get(await packages.environmentName(principal, name)) ?? null);
  const problem = new Map(
    await Promise.all(environments.list().map(async ({ name }) => [name, await problemOf(name)] as const)),
  );
  return {
    default: environments.defaultName,
    environments: environments.list().map(({ name, image, archiveBytes, warnings, packages: contents }) => ({
      name,
      pythonVersion: image.pythonVersion,
      packages: contents.map(({ name, version, source, license, sha256, lockStatus, compiled }) => ({
        name,
        version,
        source,
        license,
        sha256,
        lockStatus,
        compiled,
      })),
      warnings,
      problem: problem.get(name) ?? null,
      imageBytes: image.bytes,
      archiveBytes,
      builtAt: image.builtAt,
      buildMs: image.buildMs,
    })),
  };
}
