/** Kernels, and the documents that have them. */
import { randomUUID } from "node:crypto";
import { z } from "zod";
import { env } from "../../http/validation.ts";
import type { SessionView } from "../../sessions/views.ts";
import { ClientError } from "../../shared/errors.ts";
import { createKernel, type DocumentNote, findKernel, listKernels, type NewKernel } from "./kernel-models.ts";
import type { Kernels } from "./kernels.ts";
import { BASE, idOf, type JupyterEndpoint, type JupyterRequest, placeOf, readBody } from "./reading.ts";

const MAX_PATH_CHARACTERS = 4096;

const text = (what: string) =>
  z.string(`${what} must be a string.`).max(MAX_PATH_CHARACTERS, `${what} has over ${MAX_PATH_CHARACTERS} characters.`);

/**
 * What Kernel Gateway lets through: JupyterLab sends all of its own machine's variables, whose secrets are no business of a sandbox's,
 * and whose HOME and PATH mean nothing in it.
 */
const PASSED_ON = /^(?:KERNEL_.*|JPY_SESSION_NAME)$/s;
const kernelEnv = z
  .record(z.string(), z.unknown(), "Env must be an object of strings.")
  .transform((all) => Object.fromEntries(Object.entries(all).filter(([name]) => PASSED_ON.test(name))))
  .pipe(env);

const kernelBody = z.object({
  name: z.string("The name of a kernel must be a string.").nullish(),
  path: text("Path").nullish(),
  env: kernelEnv.nullish(),
});

const documentBody = z.object({
  path: text("Path").optional(),
  name: text("Name").optional(),
  type: text("Type").optional(),
  kernel: z
    .object({ id: z.string("The id of a kernel must be a string.").nullish(), name: z.string().nullish() })
    .optional(),
});

export function kernelEndpoints(kernels: Kernels): readonly JupyterEndpoint[] {
  const of = "/api/kernels/:id";
  const common = { scope: "execute", isAtRoot: true } as const;
  return [
    {
      ...common,
      method: "get",
      path: "/api/kernels",
      handler: async ({ services, principal }) =>
        (await listKernels(services, principal.id)).map((view) => kernels.model(principal.id, view)),
    },
    {
      ...common,
      method: "post",
      path: "/api/kernels",
      status: 201,
      handler: async (asked) => {
        const { name, path, env } = await readBody(kernelBody, asked);
        const made = await newKernel(asked, { name, path: path ?? undefined, env: env ?? undefined });
        asked.response.location(`${placeOf(asked)}/api/kernels/${made.id}`);
        return kernels.model(asked.principal.id, made, "starting");
      },
    },
    {
      ...common,
      method: "get",
      path: of,
      handler: async (asked) => {
        const { services, principal } = asked;
        return kernels.model(principal.id, await findKernel(services, principal.id, idOf(asked)));
      },
    },
    {
      ...common,
      method: "delete",
      path: of,
      status: 204,
      handler: async (asked) => await deleteKernel(kernels, asked, idOf(asked)),
    },
    {
      ...common,
      method: "post",
      path: `${of}/interrupt`,
      status: 204,
      handler: async (asked) => await kernels.interrupt(asked.principal.id, idOf(asked)),
    },
    {
      ...common,
      method: "post",
      path: `${of}/restart`,
      handler: async (asked) => {
        const { principal, signal } = asked;
        return kernels.model(principal.id, await kernels.restart(principal.id, idOf(asked), signal));
      },
    },
    {
      ...common,
      method: "get",
      path: `${of}/channels`,
      handler: async (asked) => {
        const { session_id: session } = asked.request.query;
        const id = typeof session === "string" ? session.slice(0, 200) : "";
        await kernels.accept(asked.request, asked.response, idOf(asked), id);
      },
    },
  ];
}

/** Below `/jupyter` alone: the server's own sessions are at the root. */
export function documentEndpoints(kernels: Kernels): readonly JupyterEndpoint[] {
  const of = "/api/sessions/:id";
  const common = { scope: "execute", isAtRoot: false } as const;
  const model = (asked: JupyterRequest, view: SessionView, note: DocumentNote, state?: "starting") => ({
    ...note,
    kernel: kernels.model(asked.principal.id, view, state),
    ...(note.type === "notebook" && { notebook: { path: note.path, name: note.name } }),
  });
  const all = async ({ services, principal }: JupyterRequest) =>
    (await listKernels(services, principal.id)).flatMap((view) => {
      const note = kernels.noteOf(principal.id, view);
      return note === null ? [] : [{ view, note }];
    });
  const find = async (asked: JupyterRequest) => {
    const found = (await all(asked)).find(({ note }) => note.id === idOf(asked));
    if (!found) throw new ClientError("not_found", `Session not found: session_id='${idOf(asked).slice(0, 100)}'`);
    return found;
  };
  return [
    {
      ...common,
      method: "get",
      path: "/api/sessions",
      handler: async (asked) => (await all(asked)).map(({ view, note }) => model(asked, view, note)),
    },
    {
      ...common,
      method: "post",
      path: "/api/sessions",
      status: 201,
      handler: async (asked) => {
        const { path, name = "", type = "notebook", kernel = {} } = await readBody(documentBody, asked);
        if (path === undefined) throw new ClientError("invalid_request", "Path must be a string.");
        const there = (await all(asked)).find(({ note }) => note.path === path);
        if (there) return model(asked, there.view, there.note);
        const note = { id: randomUUID(), path, name, type };
        asked.response.location(`${BASE}/api/sessions/${note.id}`);
        if (kernel.id == null)
          return model(asked, await newKernel(asked, { name: kernel.name, note }), note, "starting");
        const view = await findKernel(asked.services, asked.principal.id, kernel.id);
        kernels.note(asked.principal.id, view, note);
        return model(asked, view, note);
      },
    },
    {
      ...common,
      method: "get",
      path: of,
      handler: async (asked) => {
        const { view, note } = await find(asked);
        return model(asked, view, note);
      },
    },
    {
      ...common,
      method: "patch",
      path: of,
      handler: async (asked) => {
        const { principal, services } = asked;
        const { path, name, type, kernel } = await readBody(documentBody, asked);
        const { view, note: before } = await find(asked);
        const note = {
          id: before.id,
          path: path ?? before.path,
          name: name ?? before.name,
          type: type ?? before.type,
        };
        if (kernel?.id != null && kernel.id !== view.id) {
          const other = await findKernel(services, principal.id, kernel.id);
          kernels.note(principal.id, view, null);
          kernels.note(principal.id, other, note);
          return model(asked, other, note);
        }
        if (kernel?.id == null && kernel?.name != null) {
          const made = await newKernel(asked, { name: kernel.name, note });
          await deleteKernel(kernels, asked, view.id);
          return model(asked, made, note, "starting");
        }
        kernels.note(principal.id, view, note);
        return model(asked, view, note);
      },
    },
    {
      ...common,
      method: "delete",
      path: of,
      status: 204,
      handler: async (asked) => await deleteKernel(kernels, asked, (await find(asked)).view.id),
    },
  ];
}

async function newKernel({ services, principal, record }: JupyterRequest, kernel: NewKernel): Promise<SessionView> {
  const made = await createKernel(services, principal.id, kernel);
  record("session_create", { session: made.id });
  return made;
}

async function deleteKernel(
  kernels: Kernels,
  { principal, signal, record }: JupyterRequest,
  id: string,
): Promise<void> {
  await kernels.delete(principal.id, id, signal);
  record("session_delete", { session: id });
}
