/** What a client is told of a kind of error; `docs/errors.md` and the OpenAPI document are made of these. */
interface ErrorKind {
  /** Of the HTTP reply. */
  readonly status: number;
  /** The text of every error with this code, where the code says it all. */
  readonly text?: string;
  /** What it means, where each error has a text of its own. */
  readonly means?: string;
  /**
   * Whether the same request may succeed later: after so many seconds, which the reply says (`Retry-After`), or `later`, after a
   * time that each error knows or that is not known. False: not before something else has changed.
   */
  readonly retry: number | "later" | false;
  /** User code meets it, as an exception of what it asked of the server; no HTTP reply has this code. */
  readonly inPython?: true;
}

/** Every error that a client may see, by its code: stable, for programs. Codes stay; texts of the HTTP contract are fixed. */
export const ERRORS = {
  // The request.
  invalid_json: { status: 400, text: "Invalid JSON format", retry: false },
  json_too_complex: {
    status: 400,
    means: "The JSON is nested too deeply, has too many values or, as a form may have, a name that is too long.",
    retry: false,
  },
  invalid_encoding: { status: 400, means: "Bytes are not text in the encoding that was declared.", retry: false },
  invalid_request: { status: 400, means: "A member of the request is missing or wrong.", retry: false },
  bad_request: { status: 400, means: "The request cannot be read; the status says more.", retry: false },
  wrong_content_type: {
    status: 415,
    means: "A body of this type is not read here. 400 where a member that is needed is missing for that reason.",
    retry: false,
  },
  unsupported_encoding: { status: 415, means: "This encoding or compression of a body is not known.", retry: false },
  body_too_slow: { status: 408, means: "The body comes too slowly.", retry: "later" },
  too_large: { status: 413, text: "request entity too large", retry: false },
  too_many_parameters: { status: 413, text: "too many parameters", retry: false },
  endpoint_not_found: { status: 404, text: "Endpoint not found", retry: false },
  client_gone: { status: 499, text: "The client went away", retry: "later" },
  internal: { status: 500, text: "Internal server error", retry: "later" },

  // Who asks, and how much.
  unauthorized: { status: 401, means: "There is no API key, or a wrong one, while the server has keys.", retry: false },
  too_many_wrong_keys: { status: 429, text: "Too many wrong keys came from your address. Wait.", retry: "later" },
  missing_scope: { status: 403, means: "The API key lacks the scope.", retry: false },
  wrong_host: {
    status: 403,
    text: "This server does not go by that name. Add it to CORS_ORIGIN.",
    retry: false,
  },
  cross_site: {
    status: 403,
    text: "Pages of other sites may not use this server. See CORS_ORIGIN.",
    retry: false,
  },
  rate_limited: { status: 429, text: "Too many requests", retry: "later" },
  too_much_held: {
    status: 429,
    text: "The server holds too much for you: large requests at a time, or replies that you do not read.",
    retry: 1,
  },
  upgrade_required: { status: 426, text: "Open this as a WebSocket.", retry: false },
  too_many_connections: {
    status: 429,
    text: "Too many of your WebSockets are open, or lost and not resumed.",
    retry: 5,
  },
  too_many_open_requests: {
    status: 429,
    text: "Too many of your requests are open. Wait until some of them have their reply.",
    retry: 1,
  },
  connection_limit: { status: 503, text: "The server has all connections that it can hold", retry: 1 },
  too_many_streams: { status: 429, text: "Too many of your dashboards are open", retry: 10 },

  // Executions.
  no_code: { status: 400, text: "No Python code provided in request body", retry: false },
  unknown_environment: { status: 400, means: "There is no environment of this name.", retry: false },
  other_environment: { status: 400, means: "The session runs in another environment.", retry: false },
  environment_broken: { status: 503, means: "Sandboxes of the environment do not start.", retry: "later" },
  starting: { status: 503, means: "The server starts: the environment is not ready yet.", retry: 2 },
  server_stopping: { status: 503, text: "The server is stopping. Try again later.", retry: 5 },
  queue_full: { status: 429, text: "The server is busy. Try again later.", retry: 1 },
  principal_queue_full: {
    status: 429,
    text: "Too many of your executions are waiting. Try again later.",
    retry: 1,
  },
  interrupted: { status: 409, text: "Execution was cancelled", retry: "later" },
  audit_unavailable: {
    status: 503,
    text: "The security log cannot be written, so no code is run.",
    retry: 10,
  },

  // MCP servers.
  unknown_mcp_server: { status: 400, means: "There is no MCP server of this name for the caller.", retry: false },
  mcp_unavailable: { status: 503, means: "An MCP server cannot be reached, or its tools cannot be read.", retry: 5 },

  // WebSockets.
  execution_exists: {
    status: 409,
    text: "An execution of this name is not over yet on this connection.",
    retry: "later",
  },
  too_many_executions: { status: 429, text: "Too much is under way on this connection.", retry: 1 },
  channel_not_found: {
    status: 404,
    text: "There is no such channel: its time was over, the server was restarted, or it is on another server.",
    retry: false,
  },

  // The network, and secrets.
  invalid_network: {
    status: 400,
    means: "`network` cannot be used: it names what may not be reached or set.",
    retry: false,
  },
  unknown_secret: {
    status: 400,
    means: "A rule names a secret that is not there, or not for this host.",
    retry: false,
  },
  secret_host: { status: 400, means: "A rule sends a secret to a host that it is not for.", retry: false },
  secret_unreadable: {
    status: 409,
    text: "The secret was encrypted with a key that this server has no more. Put it again.",
    retry: false,
  },
  invalid_secret: { status: 400, means: "A secret cannot have this name, value or host.", retry: false },
  secret_limit: { status: 409, means: "The caller has as many secrets as it may have.", retry: false },
  secret_not_found: { status: 404, text: "Secret not found", retry: false },
  secrets_off: {
    status: 501,
    text: "This server keeps no secrets of callers: its operator has set no SECRETS_KEY.",
    retry: false,
  },

  // Calls of the caller's own tools.
  invalid_tools: {
    status: 400,
    means: "A tool's name or schema cannot be used, or two tools get one name.",
    retry: false,
  },
  unknown_tool_endpoint: { status: 400, text: "The URL is none of the server's TOOL_ENDPOINTS", retry: false },
  too_few_sandboxes: {
    status: 429,
    text: "Code that waits for its client needs a second sandbox: set POOL_SIZE to 2 or more.",
    retry: false,
  },
  too_many_tool_executions: {
    status: 429,
    text: "As many executions wait for their clients as may. Try again later.",
    retry: 1,
  },
  execution_not_found: { status: 404, text: "Execution not found", retry: false },
  unknown_tool_call: { status: 404, text: "The execution has made no such call", retry: false },
  tool_call_answered: { status: 409, means: "The call has its answer, or its time was over.", retry: false },
  tool_value_too_large: { status: 413, means: "A result has more bytes than one may have.", retry: false },
  tool_wait_expired: {
    status: 410,
    text: "The execution has ended: a call of it was left without an answer for too long",
    retry: false,
  },

  // Sessions.
  session_not_found: { status: 404, text: "Session not found", retry: false },
  session_exists: { status: 409, text: "Session already exists", retry: false },
  invalid_session_id: { status: 400, means: "A session cannot have this id.", retry: false },
  session_limit: { status: 429, means: "The caller has as many sessions as it may have.", retry: false },
  session_queue_full: {
    status: 429,
    text: "Too many executions wait for this session. Try again later.",
    retry: 1,
  },
  session_busy: { status: 503, text: "The session is busy on another server.", retry: 5 },
  session_occupied: {
    status: 503,
    text: "Something else runs in the session, or all sandboxes are taken.",
    retry: 1,
  },
  session_moved: {
    status: 409,
    text: "Another server has gone on with the session; this was not kept.",
    retry: "later",
  },
  session_waiting: {
    status: 409,
    text: "Code in the session waits for its client. Answer it, or interrupt the session.",
    retry: "later",
  },
  session_pinned: {
    status: 409,
    means: "The session holds what cannot be stored, such as a callback that ctypes has made for C.",
    retry: "later",
  },
  session_full: { status: 413, means: "The session would take more than a session may.", retry: false },
  session_unloadable: { status: 409, means: "The session's stored state does not load.", retry: false },
  session_damaged: { status: 409, means: "The session's stored state is damaged.", retry: false },
  session_environment_changed: {
    status: 409,
    means: "The session was made with another build of its environment: its files can be read, its variables cannot.",
    retry: false,
  },
  session_environment_gone: {
    status: 409,
    text: "The session was made with packages that are not installed any more. Its files can still be read.",
    retry: false,
  },
  store_full: { status: 507, means: "The session store, or the caller's share of it, is full.", retry: false },
  invalid_checkpoint_name: { status: 400, means: "A checkpoint cannot have this name.", retry: false },
  checkpoint_exists: { status: 409, means: "The session has a checkpoint of this name.", retry: false },
  checkpoint_limit: {
    status: 409,
    means: "The session has as many checkpoints as it may have.",
    retry: false,
  },

  // Files.
  namespace_without_session: {
    status: 400,
    text: "A namespace is a session's: name the session, too.",
    retry: false,
  },
  invalid_namespace_name: { status: 400, means: "A namespace cannot have this name.", retry: false },
  namespace_exists: { status: 409, means: "The session has a namespace of this name.", retry: false },
  namespace_limit: { status: 409, means: "The session has as many namespaces as it may have.", retry: false },
  not_found: { status: 404, means: "There is no such file, checkpoint or namespace.", retry: false },
  invalid_filename: { status: 400, text: "Invalid filename", retry: false },
  invalid_path: { status: 400, means: "This is no path of a workspace.", retry: false },
  invalid_changes: { status: 400, means: "What the code left cannot be written under this name.", retry: false },
  not_a_file: { status: 409, means: "A folder has the name of the file, or a file that of a folder.", retry: false },
  file_open: { status: 409, text: "The session has this file open", retry: "later" },
  content_gone: { status: 409, text: "The file has been replaced long ago.", retry: "later" },
  workspace_full: { status: 413, means: "The caller's workspace has no room for it.", retry: false },
  storage_full: {
    status: 507,
    text: "The server's storage is full: this could not be stored. Delete files or sessions, for which there is room.",
    retry: false,
  },
  store_unavailable: { status: 503, means: "Storage cannot be reached, or fails.", retry: 5 },
  no_file: { status: 400, text: "No file uploaded", retry: false },
  unexpected_field: { status: 400, text: "Unexpected field", retry: false },
  file_type: { status: 400, means: "The extension is not in UPLOAD_TYPES.", retry: false },
  file_too_large: { status: 400, means: "The upload is larger than MAX_FILE_SIZE.", retry: false },
  too_many_files: { status: 400, text: "Too many files", retry: false },
  invalid_upload: { status: 400, means: "The upload is incomplete or malformed.", retry: false },

  // Packages.
  package_refused: { status: 403, means: "The compatibility contract refuses this name.", retry: false },
  packages_busy: { status: 503, text: "Other servers change these packages all the time.", retry: 2 },
  package_invalid_requirement: { status: 422, means: "The requirement cannot be read.", retry: false },
  package_not_found: {
    status: 422,
    means: "No source has it, or none for this platform and Python.",
    retry: false,
  },
  package_conflict: {
    status: 422,
    means: "It exists, but not in a version that everything else agrees with.",
    retry: false,
  },
  package_source_unavailable: {
    status: 422,
    means: "A source answers with an error, too slowly, or with something else than it should.",
    retry: "later",
  },
  package_damaged: {
    status: 422,
    means: "What was downloaded is not what was promised, or no wheel that may be unpacked.",
    retry: false,
  },
  package_unsafe_library: {
    status: 422,
    means: "A shared library in it asks for more than a sandbox gives.",
    retry: false,
  },
  package_too_large: { status: 422, means: "It has too many files or bytes.", retry: false },
  package_share_full: {
    status: 422,
    means: "The caller's packages would take more than its share of the server's disk.",
    retry: false,
  },
  package_incompatible: {
    status: 422,
    means: "It does not work here, or the interpreter that runs now cannot take it in.",
    retry: false,
  },
  package_in_use: { status: 422, means: "Another installed package needs it.", retry: false },
  package_storage: {
    status: 422,
    means: "The server has no room for it, or may not write where packages are kept.",
    retry: "later",
  },

  // What user code asks of the server while it runs.
  unknown_operation: { status: 400, means: "The server does not offer this.", retry: false, inPython: true },
  unknown_archive: { status: 404, text: "no such package archive", retry: false, inPython: true },
  argument_too_large: { status: 400, means: "The argument is too large.", retry: false, inPython: true },
  invalid_argument: {
    status: 400,
    text: "the argument is not of the right form",
    retry: false,
    inPython: true,
  },
  too_many_requests: { status: 400, means: "One execution makes too many requests.", retry: false, inPython: true },
} as const satisfies Readonly<Record<string, ErrorKind>>;

export type ErrorCode = keyof typeof ERRORS;

/** Codes whose errors all have one text. */
type WithText = { [C in ErrorCode]: (typeof ERRORS)[C] extends { readonly text: string } ? C : never }[ErrorCode];

/** What is known of a code. */
export const errorKind = (code: ErrorCode): ErrorKind => ERRORS[code];

interface ErrorOptions {
  /** Seconds, where they are not those of {@link ERRORS}. */
  readonly retryAfterS?: number | undefined;
  /** What the client could do about it, where the contract fixes the text. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
}

/**
 * An error that a client is told about: its code says which of {@link ERRORS} it is, `message` is the text in the reply.
 *
 * Only this class (and its subclasses) reaches a client with its message; anything else becomes a plain 500, so that no
 * host path or stack can leak. `http/middleware/error-handler.ts` is the one place where errors become replies.
 */
export class ClientError extends Error {
  override readonly name: string = "ClientError";
  readonly code: ErrorCode;
  /** Of the HTTP reply; only `http/` looks at it. */
  readonly status: number;
  /** Seconds after which trying again makes sense; becomes `Retry-After`. */
  readonly retryAfterS: number | undefined;
  readonly hint: string | undefined;

  constructor(code: WithText, options?: ErrorOptions);
  constructor(code: Exclude<ErrorCode, WithText>, message: string, options?: ErrorOptions);
  constructor(code: ErrorCode, first?: string | ErrorOptions, second?: ErrorOptions) {
    const [message, options = {}] = typeof first === "string" ? [first, second] : [undefined, first];
    const { status, text, retry } = errorKind(code);
    super(message ?? text, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.status = status;
    this.retryAfterS = options.retryAfterS ?? (typeof retry === "number" ? retry : undefined);
    this.hint = options.hint;
  }

  /** The error of which another thread has told code and message. */
  static of({ code, message }: { readonly code: ErrorCode; readonly message: string }): ClientError {
    return new ClientError(code as Exclude<ErrorCode, WithText>, message);
  }
}

/** More executions wait than may: the sandboxes work, and have enough to do. */
export function isQueueFull(error: unknown): boolean {
  return error instanceof ClientError && (error.code === "queue_full" || error.code === "principal_queue_full");
}

/** The server cannot start, or a command cannot run, as it is set up: `message` says what to do about it. Exit code 1. */
export class StartupError extends Error {
  override readonly name = "StartupError";
}

/** A sandbox process ended, or broke the protocol, while it held an execution. The execution's effects are lost. */
export class SandboxDiedError extends Error {
  override readonly name = "SandboxDiedError";
}
