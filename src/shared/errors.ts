/**
 * An error that a client is told about: `message` is the text in the reply, `status` the HTTP status.
 *
 * Only this class (and its subclasses) reaches a client with its message; anything else becomes a plain 500, so that no
 * host path or stack can leak. `http/middleware/error-handler.ts` is the one place where errors become replies.
 */
export class ClientError extends Error {
  override readonly name: string = "ClientError";
  readonly status: number;
  /** Stable, for programs: `session_not_found`, `queue_full`, … */
  readonly code: string;
  /** Seconds after which trying again makes sense; becomes `Retry-After`. */
  readonly retryAfterS: number | undefined;
  /** What the client could do about it, where the contract fixes `message`. */
  readonly hint: string | undefined;

  constructor(
    status: number,
    code: string,
    message: string,
    options: { retryAfterS?: number; hint?: string | undefined; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.status = status;
    this.code = code;
    this.retryAfterS = options.retryAfterS;
    this.hint = options.hint;
  }
}

/** The server cannot start, or a command cannot run, as it is set up: `message` says what to do about it. Exit code 1. */
export class StartupError extends Error {
  override readonly name = "StartupError";
}

/** A sandbox process ended, or broke the protocol, while it held an execution. The execution's effects are lost. */
export class SandboxDiedError extends Error {
  override readonly name = "SandboxDiedError";
}

/** What was not begun, or was cut off, because the server ends. Safe to send again. */
export const serverStopping = () =>
  new ClientError(503, "server_stopping", "The server is stopping. Try again later.", { retryAfterS: 5 });

export const badRequest = (code: string, message: string, hint?: string) =>
  new ClientError(400, code, message, { hint });
export const notFound = (message: string) => new ClientError(404, "not_found", message);
