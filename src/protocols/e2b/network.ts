import { z } from "zod";
import { type NetworkInput, networkInput } from "../../egress/network-rules.ts";
import { parseBody } from "../../http/validation.ts";
import { ClientError } from "../../shared/errors.ts";
import type { SandboxState } from "./state.ts";

const ALL_TRAFFIC = "0.0.0.0/0";

const MAX_HOSTS = 100;
const MAX_HOST_CHARACTERS = 300;

const hosts = z
  .array(
    z
      .string("Hosts of network must be strings.")
      .max(MAX_HOST_CHARACTERS, `A host of network is longer than ${MAX_HOST_CHARACTERS} characters.`),
    "Hosts of network must be an array.",
  )
  .max(MAX_HOSTS, `network names more than ${MAX_HOSTS} hosts.`)
  .optional();

/** What E2B's clients say of a sandbox's network. */
export const network = z.object(
  {
    allowOut: hosts,
    denyOut: hosts,
    rules: z
      .record(
        z.string(),
        z.array(z.looseObject({ transform: z.looseObject({}).nullish() }), "The rules of a host must be an array."),
        "network.rules must be an object of hosts.",
      )
      .optional(),
    egressProxy: z.unknown().optional(),
    maskRequestHost: z.unknown().optional(),
    allowPublicTraffic: z.boolean("network.allowPublicTraffic must be true or false.").optional(),
  },
  "network must be an object.",
);

/**
 * The same as our own rules have it, which narrow what the server allows.
 *
 * @throws {ClientError} 400 for what they cannot say.
 */
export function toNetworkInput(
  asked: z.output<typeof network> | null | undefined,
  allowInternetAccess: boolean | null | undefined,
): NetworkInput | undefined {
  const { allowOut, denyOut = [], rules = {}, egressProxy, maskRequestHost } = asked ?? {};
  if (egressProxy != null) throw refused("network.egressProxy", "requests go out from the server");
  if (maskRequestHost != null) throw refused("network.maskRequestHost", "nothing in a sandbox listens on a port");
  const denied = denyOut.filter((host) => host !== ALL_TRAFFIC);
  if (denied.length > 0) {
    const what = `network.denyOut ${JSON.stringify(denied[0]?.slice(0, 100))}`;
    throw refused(what, `deny all traffic ("${ALL_TRAFFIC}") and name in allowOut what may be reached`);
  }
  const isClosed = allowInternetAccess === false || denyOut.length > 0;
  // What is allowed goes before what is denied; where nothing is denied, all is allowed anyway.
  const narrowed = isClosed && !allowOut?.includes(ALL_TRAFFIC) ? (allowOut ?? []) : undefined;
  const headers = Object.entries(rules).map(([host, list]) => {
    return [host, list.filter(({ transform }) => transform != null)] as const;
  });
  const used = headers.filter(([, list]) => list.length > 0);
  if (narrowed === undefined && used.length === 0) return undefined;
  return parseBody(z.object({ network: networkInput }), {
    network: { ...(narrowed && { allowOut: narrowed }), ...(used.length > 0 && { rules: Object.fromEntries(used) }) },
  }).network;
}

/**
 * What is kept to be shown of what was asked for: what is understood, and no more, so that its size is that of our own rules.
 *
 * @param rules what {@link toNetworkInput} made of it.
 */
export function toKept(
  asked: z.output<typeof network> | null | undefined,
  rules: NetworkInput | undefined,
): SandboxState["network"] {
  if (asked == null) return null;
  const { allowOut, denyOut, allowPublicTraffic } = asked;
  return {
    ...(allowOut && { allowOut }),
    ...(denyOut && { denyOut }),
    ...(rules?.rules && { rules: rules.rules }),
    ...(allowPublicTraffic !== undefined && { allowPublicTraffic }),
  };
}

function refused(what: string, hint: string): ClientError {
  return new ClientError("invalid_network", `${what} is not supported here: ${hint}.`);
}
