import { endpoint, json, type Protocol, type ProtocolOptions } from "../../http/protocol.ts";

/** https://github.com/engineer-man/piston/blob/master/docs/api-v2.md */
export function piston({ services }: ProtocolOptions): Protocol {
  return {
    name: "piston",
    owns: ({ path }) => path.startsWith("/api/v2/"),
    executes: ({ method, path }) => method === "POST" && path === "/api/v2/execute",
    endpoints: [
      endpoint({
        method: "get",
        path: "/api/v2/runtimes",
        scope: "any key",
        reply: json(),
        handler: () => {
          const { environments, defaultEnvironment } = services.packages;
          const { pythonVersion } = environments.get(defaultEnvironment).image;
          return [{ language: "python", version: pythonVersion, aliases: ["py", "py3", "python3"] }];
        },
      }),
    ],
    sendError: (response, { status, message }) => response.status(status).json({ message }),
  };
}
