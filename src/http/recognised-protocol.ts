import type { Request, RequestHandler, Response } from "express";
import type { ClientError } from "../shared/errors.ts";

/**
 * What a client presents where a protocol has it: a key, a token that was derived from one for a purpose (`derivedToken` in
 * `middleware/authentication.ts`), or a signature that was made with such a token.
 */
export type Credential =
  | { readonly kind: "key"; readonly key: string }
  | { readonly kind: "token"; readonly token: string; readonly purpose: string }
  | {
      readonly kind: "signature";
      readonly signature: string;
      readonly purpose: string;
      /** The signature that the holder of a token makes. */
      readonly sign: (token: string) => string;
    };

/** What is different about the requests of a foreign protocol, for what stands before its endpoints. */
export interface RecognisedProtocol {
  readonly name: string;
  /** Whether a request is this protocol's: by its path, a header or the name of the host. Asked for each request of the server, before anything else. */
  readonly owns: (request: Request) => boolean;
  /** The credential, where its clients put it elsewhere than the server's own do; undefined: there is none. */
  readonly credentialOf?: (request: Request) => Credential | undefined;
  /** Whether a body of JSON, or a form, is read before the endpoint; default: it is. */
  readonly readsBody?: (request: Request) => boolean;
  /** Whether an execution is asked for, which is refused early where there is no room; default: none is. */
  readonly executes?: (request: Request) => boolean;
  /** Pages of other sites are refused also where CORS_ORIGIN says nothing of them: the protocol demands it. Default: as for the server's own requests. */
  readonly refusesOtherSites?: boolean;
  /** Replies with an error as its clients expect it, with the status that the error has or another. `Retry-After` is set already. */
  readonly sendError: (response: Response, error: ClientError, request: Request) => void;
}

/** The protocol that a request belongs to; undefined: the server's own. */
export function protocolOf(response: Response): RecognisedProtocol | undefined {
  return response.locals.protocol as RecognisedProtocol | undefined;
}

/** Says of each request which protocol it is of: before anything that can refuse it. */
export function recogniseProtocol(protocols: readonly RecognisedProtocol[]): RequestHandler {
  return (request, response, next) => {
    response.locals.protocol = protocols.find((protocol) => protocol.owns(request));
    next();
  };
}
