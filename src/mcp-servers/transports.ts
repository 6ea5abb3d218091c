import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import type { McpServerDefinition } from "./server-file.ts";

/** Of one response, or of one line of a process: a tool's value of 10 MB, as JSON in JSON. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
const TOO_MUCH = `it sends more than ${MAX_MESSAGE_BYTES} bytes`;
const MARGIN_MS = 5_000;

/** @param giveUp ends the connection: what waits for an answer would wait for its time otherwise. */
export function openTransport(
  { transport, timeoutMs }: McpServerDefinition,
  giveUp: (reason: string) => void,
): Transport {
  if (transport.type === "stdio") {
    const { command, args, env, cwd } = transport;
    return new StdioClientTransport({
      command,
      args: [...args],
      env: { ...env },
      ...(cwd !== undefined && { cwd }),
      // It may write anything there, a credential too.
      stderr: "ignore",
      maxBufferSize: MAX_MESSAGE_BYTES,
    });
  }
  return new StreamableHTTPClientTransport(transport.url, {
    requestInit: { headers: { ...transport.headers } },
    fetch: boundedFetch(timeoutMs + MARGIN_MS, giveUp),
  }) as Transport;
}

/**
 * Follows no redirect: where one leads to is not the operator's choice, and headers would go along. Reads no more than a message may have.
 */
function boundedFetch(timeoutMs: number, giveUp: (reason: string) => void): typeof fetch {
  return async (input, init) => {
    const isPost = init?.method === "POST";
    const signals = [...(init?.signal ? [init.signal] : []), ...(isPost ? [AbortSignal.timeout(timeoutMs)] : [])];
    const response = await fetch(input, {
      ...init,
      redirect: "manual",
      ...(signals.length > 0 && { signal: AbortSignal.any(signals) }),
    });
    if (response.status >= 300 && response.status < 400) {
      await response.body?.cancel();
      throw new Error(`it answers with a redirect (${response.status}), which is not followed`);
    }
    if (response.body === null) return response;
    let bytes = 0;
    const bounded = response.body.pipeThrough(
      new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
        transform(chunk, controller) {
          bytes += chunk.length;
          if (bytes <= MAX_MESSAGE_BYTES) return controller.enqueue(chunk);
          controller.error(new Error(TOO_MUCH));
          giveUp(TOO_MUCH);
        },
      }),
    );
    const { status, statusText, headers } = response;
    return new Response(bounded, { status, statusText, headers });
  };
}
