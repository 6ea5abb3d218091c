import type { RequestId } from "@modelcontextprotocol/sdk/types.js";
import type { Response } from "express";

/** JSON-RPC's codes, as the SDK has them; `server` is of the range that it leaves to servers. */
export const REFUSED = {
  parse: -32700,
  request: -32600,
  parameters: -32602,
  internal: -32603,
  server: -32000,
} as const;

export interface Refused {
  readonly refused: number;
  readonly message: string;
  readonly id: RequestId | null;
  readonly data?: object;
}

export function refuse(response: Response, status: number, { refused: code, message, id, data }: Refused): void {
  response.status(status).json({ jsonrpc: "2.0", id, error: { code, message, ...(data && { data }) } });
}
