import type { Protocol, ProtocolOptions } from "../http/protocol.ts";
import type { ProtocolName } from "../shared/settings.ts";
import { dify } from "./dify/dify.ts";
import { e2b } from "./e2b/e2b.ts";
import { jupyter } from "./jupyter/jupyter.ts";
import { librechat } from "./librechat/librechat.ts";
import { mcp } from "./mcp/mcp.ts";
import { piston } from "./piston/piston.ts";
import { sandboxfusion } from "./sandboxfusion/sandboxfusion.ts";

/** In this order each is asked whether a request is its own. */
const ADAPTERS: Readonly<Record<ProtocolName, (options: ProtocolOptions) => Protocol>> = {
  jupyter,
  e2b,
  mcp,
  piston,
  dify,
  sandboxfusion,
  librechat,
};

/** The adapters of these names. */
export function openProtocols(names: readonly ProtocolName[], options: ProtocolOptions): readonly Protocol[] {
  return Object.entries(ADAPTERS)
    .filter(([name]) => names.includes(name as ProtocolName))
    .map(([, open]) => open(options));
}
