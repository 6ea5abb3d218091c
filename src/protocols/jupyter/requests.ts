/** What a kernel answers, by the type of a request. */
import { complete, inspect, isComplete } from "./editor-requests.ts";
import { execute } from "./execute.ts";
import type { Kernels } from "./kernels.ts";
import type { Asked, Handlers } from "./live-kernel.ts";
import { PROTOCOL_VERSION } from "./messages.ts";

/** Those that take their turn. */
export const SHELL: Handlers = {
  kernel_info_request: kernelInfo,
  execute_request: execute,
  // Behind the code that runs, as any kernel's: editors wait, and do not say that anything is wrong.
  complete_request: complete,
  inspect_request: inspect,
  is_complete_request: isComplete,
  comm_info_request: () => ({ status: "ok", comms: {} }),
  // What was run is with the clients, and in notebooks.
  history_request: () => ({ status: "ok", history: [] }),
  connect_request: () => ({ status: "ok", shell_port: 0, iopub_port: 0, stdin_port: 0, control_port: 0, hb_port: 0 }),
};

/** Those that are done at once, whatever runs. @param kernels the kernels of the server, once they are there. */
export function controlHandlers(kernels: () => Kernels): Handlers {
  return {
    kernel_info_request: kernelInfo,
    interrupt_request: async ({ kernel }) => {
      await kernels().interrupt(kernel.owner, kernel.id);
      return { status: "ok" };
    },
    shutdown_request: async ({ kernel, request, afterReply }) => {
      const isRestart = request.content.restart === true;
      if (isRestart) await kernels().restart(kernel.owner, kernel.id, new AbortController().signal);
      // Its connections close when it is gone: the reply first.
      else afterReply.push(() => kernels().deleteInBackground(kernel));
      return { status: "ok", restart: isRestart };
    },
    debug_request: ({ request }) => ({
      type: "response",
      request_seq: request.content.seq ?? 0,
      command: request.content.command ?? "",
      success: false,
      message: "This kernel has no debugger.",
    }),
  };
}

function kernelInfo({ kernel }: Asked): object {
  const { packages, status } = kernel.services;
  const { pythonVersion } = packages.environments.get(packages.defaultEnvironment).image;
  return {
    status: "ok",
    protocol_version: PROTOCOL_VERSION,
    implementation: "pyodide-express",
    implementation_version: status.version,
    language_info: {
      name: "python",
      version: pythonVersion,
      mimetype: "text/x-python",
      codemirror_mode: { name: "ipython", version: 3 },
      pygments_lexer: "ipython3",
      nbconvert_exporter: "python",
      file_extension: ".py",
    },
    banner: `Python ${pythonVersion} on pyodide-express: code runs in a sandbox of WebAssembly`,
    help_links: [],
    debugger: false,
    supported_features: [],
  };
}
