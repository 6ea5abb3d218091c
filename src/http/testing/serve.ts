import { once } from "node:events";
import type { AddressInfo } from "node:net";
import type { ErrorRequestHandler, Express } from "express";
import { ClientError } from "../../shared/errors.ts";

/** A server on a free loopback port, with nothing in it but the app. */
export interface TestServer extends AsyncDisposable {
  /** `http://127.0.0.1:<port>` */
  readonly origin: string;
}

/** Serves an app over real HTTP; client errors become replies in the shape of the contract. */
export async function serve(app: Express): Promise<TestServer> {
  app.use(reply);
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

const reply: ErrorRequestHandler = (error, _request, response, _next) => {
  const known = error instanceof ClientError;
  if (known && error.retryAfterS !== undefined) response.set("Retry-After", String(error.retryAfterS));
  response.status(known ? error.status : 500).json({
    success: false,
    error: known ? error.message : "Internal server error",
    timestamp: new Date().toISOString(),
  });
};
