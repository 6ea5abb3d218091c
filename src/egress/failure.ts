/** What went wrong, for programs: `sandbox_runner/network.py` turns each into the exception a Python library raises for it. */
export type FailureKind =
  /** By our rules: not allowed, malformed, or more than there may be. */
  | "refused"
  | "name"
  | "connect"
  | "connect-timeout"
  | "tls"
  | "timeout"
  /** The connection broke, or what came is not HTTP. */
  | "protocol";

/** A request that came to nothing. User code reads the message: it names hosts as that code did, and never an address. */
export class NetworkFailure extends Error {
  override readonly name = "NetworkFailure";
  readonly kind: FailureKind;

  constructor(kind: FailureKind, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.kind = kind;
  }
}

const KINDS: Readonly<Record<string, readonly [FailureKind, string]>> = {
  ENOTFOUND: ["name", "its name cannot be found"],
  EAI_AGAIN: ["name", "its name cannot be looked up now"],
  ECONNREFUSED: ["connect", "it refused the connection"],
  EHOSTUNREACH: ["connect", "it cannot be reached"],
  ENETUNREACH: ["connect", "it cannot be reached"],
  ETIMEDOUT: ["connect-timeout", "it did not answer in time"],
  UND_ERR_CONNECT_TIMEOUT: ["connect-timeout", "it did not answer in time"],
  UND_ERR_HEADERS_TIMEOUT: ["timeout", "it sent no response in time"],
  UND_ERR_BODY_TIMEOUT: ["timeout", "it stopped sending in the middle of a response"],
  UND_ERR_HEADERS_OVERFLOW: ["protocol", "its response has too many headers"],
  UND_ERR_INVALID_ARG: ["refused", "the request is malformed"],
};

/** Node's and OpenSSL's codes for handshakes and certificates. */
const TLS_CODE = /^(?:EPROTO$|ERR_TLS_|ERR_SSL_|CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|HOSTNAME_MISMATCH$)|CRL/;

/** Puts what Node and undici throw into words. */
export function toFailure(error: unknown, host: string): NetworkFailure {
  if (error instanceof NetworkFailure) return error;
  if (error instanceof AggregateError && error.errors.length > 0) return toFailure(error.errors[0], host);
  const code = String((error as { code?: unknown } | null)?.code ?? "");
  const [kind, what] =
    KINDS[code] ??
    (TLS_CODE.test(code)
      ? (["tls", `a secure connection was not possible (${code})`] as const)
      : (["protocol", `the connection broke${code && ` (${code})`}`] as const));
  return new NetworkFailure(kind, `host ${host}: ${what}`, error);
}
