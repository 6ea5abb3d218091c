import { type ExecutionResult, notKept, type WrittenFiles } from "../sandbox/outcome.ts";
import type { Job } from "../sandbox/running-job.ts";
import type { Sandbox } from "../sandbox/sandbox.ts";
import { ClientError } from "../shared/errors.ts";
import type { HostCall, HostCalls, PackageArchive, Workspace } from "../wire/host-calls.ts";
import type { FileListing, Program } from "../wire/messages.ts";
import type { ExecutionRequest } from "./execution.ts";
import type { SandboxPool } from "./pool.ts";

/** Runs executions: each on a sandbox that nothing has touched since its baseline. */
export class Executor {
  readonly pool: SandboxPool<Sandbox>;
  readonly #isStarting: () => boolean;

  /** @param isStarting environments are being built still. */
  constructor(pool: SandboxPool<Sandbox>, isStarting = () => false) {
    this.pool = pool;
    this.#isStarting = isStarting;
  }

  /** All that it is to run can be run. Until then some may be. */
  get isReady(): boolean {
    return this.pool.isReady && !this.#isStarting();
  }

  /**
   * Runs code in a pristine interpreter. Python errors, timeouts and crashes are results.
   *
   * @throws {ClientError} 429 when too many wait, 503 when the server stops.
   * @throws the signal's reason, if it is aborted while the execution waits for a sandbox.
   */
  async execute(request: ExecutionRequest): Promise<ExecutionResult> {
    const { environment, principal, signal, onWait, workspace } = request;
    return await this.pool.use({ environment, principal, signal, onWait }, async (sandbox) => {
      const files = workspace ? await listFiles(workspace) : null;
      request.onStart?.();
      const { result, files: written } = await sandbox.execute(
        toJob(request, { execution: null, reseed: true }, files),
      );
      const failure = written && workspace ? await applyChanges(workspace, written) : null;
      if (failure === null) return result;
      return notKept(result, "WorkspaceError", `The execution's files were not kept: ${failure.message}`, failure);
    });
  }
}

async function listFiles(workspace: Workspace): Promise<FileListing> {
  const [entries, { bytes, files }] = await Promise.all([workspace.list(), workspace.quota()]);
  return { entries, maxBytes: bytes, maxFiles: files };
}

/** @returns why the files could not be kept; null: they were. */
async function applyChanges(workspace: Workspace, { changes, contents }: WrittenFiles): Promise<ClientError | null> {
  try {
    await workspace.apply(changes, contents);
    return null;
  } catch (error) {
    // The code has run: the caller gets its output, and is told that its files are as they were.
    if (error instanceof ClientError) return error;
    throw error;
  }
}

/** A request as its sandbox needs it: of the files their contents. */
interface JobRequest extends Omit<ExecutionRequest, "workspace"> {
  readonly workspace?: Pick<Workspace, "read"> | undefined;
}

/**
 * The job that an execution is for its sandbox.
 *
 * @param place the execution's number in its session.
 * @param files of a stateless execution; null: none, or a session's, which it has been loaded with.
 */
export function toJob(
  request: JobRequest,
  place: Pick<Program, "execution" | "reseed" | "start" | "namespace">,
  files: FileListing | null,
): Job {
  const {
    code,
    context = null,
    env,
    argv,
    display,
    stdin = "",
    timeoutMs,
    packages,
    tools = null,
    signal,
    onOutput,
  } = request;
  return {
    message: {
      type: "execute",
      // An editor's byte order mark is not part of a program; Python itself skips it at the beginning of a file only.
      program: {
        code: code.replace(/^\uFEFF+/, ""),
        context,
        ...place,
        tools,
        ...(env && { env }),
        ...(argv && { argv }),
        ...(display && { display }),
        ...(request.question && { question: request.question }),
        ...(request.printTraceback === false && { printTraceback: false as const }),
        ...(request.isCounted === false && { isCounted: false as const }),
      },
      stdin,
      stream: onOutput !== undefined,
      files,
      packages: packages?.listing ?? null,
    },
    timeoutMs,
    signal,
    onOutput,
    calls: () => hostCalls(request),
  };
}

/** What the request offers, with the contents of the workspace's files and of the caller's packages. */
function hostCalls({ workspace, packages, ...request }: JobRequest): HostCalls {
  const calls = request.calls?.() ?? {};
  const archives = new Map<string, PackageArchive>();
  const remember = (archive: PackageArchive) => archives.set(archive.listing.sha256, archive);
  if (packages) remember(packages);
  const readPackage: HostCall<"read-package"> = {
    answer: ({ sha256, offset, length }) => {
      const archive = archives.get(sha256);
      if (!archive) throw new ClientError("unknown_archive");
      return { value: null, body: archive.read(offset, length) };
    },
  };
  const readFile: HostCall<"read-file"> | undefined = workspace && {
    answer: async (path) => ({ value: null, body: await workspace.read(path) }),
  };
  const install = calls["install-packages"];
  const installPackages: HostCall<"install-packages"> | undefined = install && {
    answer: async (requirements, signal) => {
      const answer = await install.answer(requirements, signal);
      if (answer.packages) remember(answer.packages);
      return answer;
    },
  };
  return {
    ...calls,
    "read-package": readPackage,
    ...(readFile && { "read-file": readFile }),
    ...(installPackages && { "install-packages": installPackages }),
  };
}
