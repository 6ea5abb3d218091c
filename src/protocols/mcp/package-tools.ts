import { z } from "zod";
import { baseOf } from "../../environments/registry.ts";
import { installPackage, listEnvironments, packageName } from "../../http/resources/packages.ts";
import { environment } from "../../http/validation.ts";
import { structured, tool } from "./tool.ts";

const MAX_PACKAGES = 20;

export const packageTools = [
  tool({
    name: "install_package",
    title: "Install Python packages",
    description:
      "Installs packages for all later code of yours. It takes pure Python wheels and wheels built for Pyodide; packages with other compiled code cannot be installed. " +
      "After one with compiled code use a new session.",
    scopes: ["packages"],
    isLong: true,
    input: z.object({
      packages: z
        .array(packageName, "Packages must be a list of names.")
        .min(1, "No package is named.")
        .max(MAX_PACKAGES, `At most ${MAX_PACKAGES} packages can be installed at a time.`)
        .meta({ description: "Names, with an optional `==version`.", examples: [["humanize"]] }),
      session: z
        .string("Session must be a string.")
        .optional()
        .meta({ description: "For the environment of this session." }),
      environment: environment
        .optional()
        .meta({ description: "Package set to install on top of; default: the server's." }),
    }),
    aliases: { package: (name) => ({ packages: [name] }) },
    output: z.looseObject({ installed: z.array(z.looseObject({ name: z.string(), version: z.string() })) }),
    annotations: { idempotentHint: true, openWorldHint: true },
    run: async (call, input) => {
      const { services, principal, caller, signal } = call;
      const base =
        input.session === undefined
          ? input.environment
          : baseOf((await services.sessions.record(principal.id, input.session)).environment);
      const installed: { name: string; version: string }[] = [];
      for (const wanted of input.packages) {
        call.progress?.(`installing ${wanted}`);
        const added = await installPackage(
          services,
          principal.id,
          caller,
          { package: wanted, environment: base },
          signal,
        );
        installed.push(...added.map(({ name, version }) => ({ name, version })));
      }
      const names = installed.map(({ name, version }) => `${name} ${version}`).join(", ");
      return structured({ installed }, names === "" ? "It was installed already." : `Installed: ${names}`);
    },
  }),
  tool({
    name: "environments_list",
    title: "List environments",
    description: "Lists the package sets that code can run in, and their packages.",
    scopes: ["execute"],
    input: z.object({}),
    output: z.looseObject({
      default: z.string(),
      environments: z.array(
        z.looseObject({
          name: z.string(),
          pythonVersion: z.string(),
          packages: z.array(z.string()),
          problem: z.string().nullable(),
        }),
      ),
    }),
    annotations: { readOnlyHint: true, idempotentHint: true },
    run: async ({ services, principal }) => {
      const list = await listEnvironments(services, principal.id);
      const environments = list.environments.map(({ name, pythonVersion, packages, problem }) => ({
        name,
        pythonVersion,
        packages: packages.map(({ name, version }) => `${name} ${version}`),
        problem,
      }));
      const lines = environments.map(
        ({ name, pythonVersion, packages, problem }) =>
          `${name}${name === list.default ? " (default)" : ""}: Python ${pythonVersion}, ${packages.join(", ") || "the standard library alone"}${problem === null ? "" : `; does not work: ${problem}`}`,
      );
      return structured({ default: list.default, environments }, lines.join("\n"));
    },
  }),
];
