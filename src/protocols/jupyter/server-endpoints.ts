/** What is asked of the server itself. */
import { randomBytes } from "node:crypto";
import type { Response } from "express";
import type { RouteServices } from "../../http/routes.ts";
import { ClientError } from "../../shared/errors.ts";
import { DEFAULT_KERNEL, listKernels } from "./kernel-models.ts";
import type { Kernels } from "./kernels.ts";
import type { JupyterEndpoint } from "./reading.ts";

/** Of Jupyter Server, whose interface this is: clients compare it. */
const API_VERSION = "2.14.0";
const STARTED = new Date().toISOString();

const PAGE = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Jupyter kernels</title></head>
<body><h1>Jupyter kernels</h1><p>This is a server of kernels, as JupyterLab, VS Code and other clients use one: <code>jupyter lab --gateway-url</code> with this address,
or this address as that of an existing Jupyter server. An API key of the server is the token.</p></body></html>
`;

export function serverEndpoints(kernels: Kernels): readonly JupyterEndpoint[] {
  const page = ["/", "/tree", "/lab", "/login"].map(
    (path): JupyterEndpoint => ({
      method: "get",
      path,
      scope: "no key",
      isAtRoot: false,
      handler: ({ response }) => {
        giveXsrfCookie(response);
        response.type("html").send(PAGE);
      },
    }),
  );
  return [
    ...page,
    {
      method: "post",
      path: "/login",
      scope: "any key",
      isAtRoot: false,
      handler: () => {
        throw new ClientError("bad_request", "There are no passwords here: give an API key as the token.");
      },
    },
    {
      method: "get",
      path: "/api",
      scope: "no key",
      isAtRoot: true,
      handler: ({ response }) => {
        giveXsrfCookie(response);
        return { version: API_VERSION };
      },
    },
    {
      method: "get",
      path: "/api/status",
      scope: "execute",
      isAtRoot: false,
      handler: async ({ services, principal }) => {
        const models = (await listKernels(services, principal.id)).map((view) => kernels.model(principal.id, view));
        const last = [STARTED, ...models.map((model) => model.last_activity)].sort().at(-1);
        const connections = models.reduce((sum, model) => sum + model.connections, 0);
        return { started: STARTED, last_activity: last, connections, kernels: models.length };
      },
    },
    {
      method: "get",
      path: "/api/me",
      scope: "any key",
      isAtRoot: true,
      handler: ({ principal: { name } }) => ({
        identity: { username: name, name, display_name: name, initials: null, avatar_url: null, color: null },
        permissions: {},
      }),
    },
    {
      method: "get",
      path: "/api/kernelspecs",
      scope: "any key",
      isAtRoot: true,
      handler: ({ services }) => ({ default: DEFAULT_KERNEL, kernelspecs: Object.fromEntries(specs(services)) }),
    },
    {
      method: "get",
      path: "/api/kernelspecs/:id",
      scope: "any key",
      isAtRoot: true,
      handler: ({ services, params }) => {
        const found = specs(services).find(([name]) => name === params.id);
        if (found === undefined)
          throw new ClientError("not_found", `Kernel spec ${String(params.id).slice(0, 100)} not found`);
        return found[1];
      },
    },
    // A server without terminals, and without settings of its own.
    { method: "get", path: "/api/terminals", scope: "any key", isAtRoot: true, handler: () => [] },
    { method: "get", path: "/api/config/:id", scope: "any key", isAtRoot: true, handler: () => ({}) },
    {
      method: "patch",
      path: "/api/config/:id",
      scope: "any key",
      isAtRoot: true,
      handler: () => {
        throw new ClientError("bad_request", "This server keeps no settings of clients.");
      },
    },
  ];
}

/** One for each environment, and one for the default environment under the name that clients know. */
function specs({ packages }: RouteServices): readonly (readonly [string, object])[] {
  const { environments, defaultEnvironment } = packages;
  const version = (name: string) => environments.get(name).image.pythonVersion;
  const spec = (name: string, display: string) => ({
    name,
    spec: {
      argv: [],
      env: {},
      display_name: display,
      language: "python",
      interrupt_mode: "message",
      metadata: { debugger: false },
    },
    resources: {},
  });
  const own = environments.list().map(({ name }) => [name, spec(name, `Python ${version(name)} (${name})`)] as const);
  if (own.some(([name]) => name === DEFAULT_KERNEL)) return own;
  return [[DEFAULT_KERNEL, spec(DEFAULT_KERNEL, `Python ${version(defaultEnvironment)}`)], ...own];
}

/** For clients that send one back. It is good for nothing here: no cookie says who asks, so no page can make use of one. */
function giveXsrfCookie(response: Response): void {
  response.cookie("_xsrf", randomBytes(16).toString("hex"), { sameSite: "lax", path: "/" });
}
