import type { Request } from "express";
import type { Protocol, ProtocolOptions } from "../../http/protocol.ts";
import type { Credential } from "../../http/recognised-protocol.ts";
import { contentEndpoints } from "./content-endpoints.ts";
import { documentEndpoints, kernelEndpoints } from "./kernel-endpoints.ts";
import { Kernels } from "./kernels.ts";
import { BASE, endpointsOf } from "./reading.ts";
import { controlHandlers, SHELL } from "./requests.ts";
import { serverEndpoints } from "./server-endpoints.ts";

/** At the root as well: names that nothing of the server's own has. */
const AT_ROOT = /^\/api(?:$|\/(?:kernels|kernelspecs|me|contents|terminals|config)(?:\/|$))/;

/** Jupyter Server and Kernel Gateway. https://jupyter-server.readthedocs.io/en/latest/developers/rest-api.html */
export function jupyter({ services, logger, count }: ProtocolOptions): Protocol {
  const kernels = new Kernels({
    services,
    shell: SHELL,
    control: controlHandlers(() => kernels),
    onError: (error) => logger.error({ err: error }, "a Jupyter message failed"),
    count,
  });
  const all = [
    ...serverEndpoints(kernels),
    ...kernelEndpoints(kernels),
    ...documentEndpoints(kernels),
    ...contentEndpoints(),
  ];
  return {
    name: "jupyter",
    owns: ({ path }) => path === BASE || path.startsWith(`${BASE}/`) || AT_ROOT.test(path),
    credentialOf,
    // Jupyter reads JSON of any type; some clients say none.
    readsBody: () => false,
    openEndpoints: all.filter(({ scope }) => scope === "no key").flatMap(endpointsOf),
    endpoints: all.filter(({ scope }) => scope !== "no key").flatMap(endpointsOf),
    close: () => kernels.close(),
    sendError: (response, { status, code, message }, request) => {
      const [, id] = /\/api\/kernels\/([^/]+)/.exec(request.path) ?? [];
      const text =
        code === "session_not_found" && id !== undefined ? `Kernel does not exist: ${id.slice(0, 100)}` : message;
      response.status(status).json({ message: text, reason: code });
    },
  };
}

/** `Authorization: token KEY`, or `?token=KEY`. */
function credentialOf(request: Request): Credential | undefined {
  const [, inHeader] = /^token +(\S.*)$/i.exec(request.get("Authorization") ?? "") ?? [];
  if (inHeader !== undefined) return { kind: "key", key: inHeader };
  const { token } = request.query;
  if (typeof token !== "string" || token === "") return undefined;
  // As a header would have it: bytes, each a character.
  return { kind: "key", key: Buffer.from(token).toString("latin1") };
}
