import { readFileSync } from "node:fs";
import { Router } from "express";
import { z } from "zod";
import { PackageError } from "../../packages/package-error.ts";
import { normaliseName } from "../../packages/pep/requirements.ts";
import { recordInstall, runInternal, type Services } from "../../service/execution-service.ts";
import { ClientError } from "../../shared/errors.ts";
import { parseRequest } from "../body.ts";
import { callerOf } from "../caller.ts";
import { sendJson } from "../json-reply.ts";
import { principalOf, requireScope } from "../middleware/authentication.ts";
import { environment, parseBody } from "../validation.ts";
import { toReply } from "./execute.ts";

const MAX_NAME_CHARACTERS = 100;
/** Names that the compatibility contract refuses. Safety does not rest on this: the sandbox stops what they could do. */
const REFUSED = new Set(["os", "subprocess", "socket", "urllib3", "requests-oauthlib"]);
const LIST_PACKAGES = readFileSync(new URL("../../programs/list_packages.py", import.meta.url), "utf8");
const LIST_TIMEOUT_MS = 30_000;

/** Texts and their order are part of the HTTP contract. */
const packageName = z
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
export const installBody = z.object({ package: packageName, environment: environment.optional() });

/** Body of `POST /api/reset`. */
export const resetBody = z.object({
  session: z
    .string("Session must be a string.")
    .optional()
    .meta({ description: "Empty this session; default: remove the packages that the caller has installed." }),
});

/** Query of `GET /api/packages`. */
const packagesQuery = z.object({ environment: environment.optional() });

/** `POST /api/install-package`, `GET /api/packages`, `POST /api/reset` and `GET /api/environments`. */
export function packageRoutes(services: Services): Router {
  const router = Router();
  const { packages } = services;

  router.post("/api/install-package", requireScope("packages"), async (request, response) => {
    const body = parseRequest(installBody, request);
    const [name = ""] = body.package.split("==", 1);
    const record = (error: string | null) => recordInstall(services, callerOf(request, response), body.package, error);
    if (REFUSED.has(normaliseName(name))) {
      record("refused");
      const message = `Package "${body.package}" is not allowed for security reasons.`;
      throw new ClientError("package_refused", message);
    }
    const principal = principalOf(response);
    const timestamp = () => new Date().toISOString();
    try {
      const environment = body.environment ?? packages.defaultEnvironment;
      const { added } = await packages.install(principal.id, environment, body.package);
      record(null);
      const installed = added.map(({ name, version }) => ({ name, version }));
      response.json({ success: true, message: "Package installed successfully", installed, timestamp: timestamp() });
    } catch (error) {
      if (!(error instanceof PackageError)) throw error;
      record(error.code);
      response.json({ success: false, error: error.message, code: error.code, timestamp: timestamp() });
    }
  });

  router.get("/api/packages", requireScope("execute"), async (request, response) => {
    const asked = parseBody(packagesQuery, request.query);
    const result = await runInternal(services, principalOf(response), {
      code: LIST_PACKAGES,
      environment: asked.environment,
      timeout: LIST_TIMEOUT_MS,
      files: "none",
    });
    sendJson(response, toReply(result));
  });

  router.get("/api/environments", requireScope("execute"), async (_request, response) => {
    const { environments } = packages;
    const { broken } = services.executor.pool.status();
    const problems = new Map(broken.map(({ environment, reason }) => [environment, reason]));
    /** Of the environment, or of the caller's own on top of it. */
    const problemOf = async (name: string) =>
      problems.size === 0
        ? null
        : (problems.get(name) ?? problems.get(await packages.environmentName(principalOf(response).id, name)) ?? null);
    const problem = new Map(
      await Promise.all(environments.list().map(async ({ name }) => [name, await problemOf(name)] as const)),
    );
    response.json({
      success: true,
      default: environments.defaultName,
      environments: environments.list().map(({ name, image, archiveBytes, warnings, packages: contents }) => ({
        name,
        pythonVersion: image.pythonVersion,
        packages: contents.map(({ name, version, source, licence, sha256, lockStatus, compiled }) => ({
          name,
          version,
          source,
          licence,
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
      timestamp: new Date().toISOString(),
    });
  });

  router.post("/api/reset", requireScope("execute"), async (request, response) => {
    // Every execution has a pristine interpreter; what is left to reset are the packages that were installed on top.
    const { session } = parseRequest(resetBody, request);
    if (session !== undefined) await services.sessions.reset(principalOf(response).id, session);
    else if (principalOf(response).scopes.has("packages")) await packages.clear(principalOf(response).id);
    services.securityLog?.append({ event: "state_reset", ...callerOf(request, response), details: {} });
    response.json({
      success: true,
      message: "Pyodide environment reset successfully",
      timestamp: new Date().toISOString(),
    });
  });
  return router;
}
