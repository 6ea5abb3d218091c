/** `/api/contents`: files. */
import { z } from "zod";
import { readJsonWithDocument } from "../../http/body.ts";
import { sendJson } from "../../http/json-reply.ts";
import { holdReply } from "../../http/middleware/held-requests.ts";
import { sendFile } from "../../http/resources/file-collection.ts";
import { parseBody } from "../../http/validation.ts";
import { ClientError } from "../../shared/errors.ts";
import { HOME, nameOf } from "../../workspaces/paths.ts";
import { BASE64 } from "../bodies.ts";
import { CHECKPOINT_ID, type ContentModel, Contents, type NewContent, sandboxPath, sandboxPathOf } from "./contents.ts";
import { type JupyterEndpoint, type JupyterRequest, placeOf, readBody } from "./reading.ts";

const type = z.enum(["file", "notebook", "directory"], "Type must be file, notebook or directory.");

const saved = z.object({
  type: type.optional(),
  format: z.enum(["text", "base64", "json"], "Format must be text, base64 or json.").optional(),
  content: z.unknown(),
  chunk: z.int("Chunk must be the number of a piece, or -1.").optional(),
});

const created = z.object({
  type: type.optional().default("file"),
  ext: z
    .string("Ext must be a string.")
    .regex(/^(?:\.[^/\0]{1,50})?$/, "Ext must begin with a dot.")
    .optional()
    .default(""),
  copy_from: z.string("Copy_from must be a path.").optional(),
});

const renamed = z.object({ path: z.string("Path must be a string.") });

export function contentEndpoints(): readonly JupyterEndpoint[] {
  const common = { scope: "files", isAtRoot: true } as const;
  /** Of the root, and of what is below it. */
  const everywhere = (rest: string, endpoint: Omit<JupyterEndpoint, "path" | "scope" | "isAtRoot">) =>
    ["/api/contents", "/api/contents/*path"].map((path) => ({ ...common, ...endpoint, path: path + rest }));
  return [
    // Before the files: a file of this name is none that Jupyter can name either.
    ...everywhere("/checkpoints", {
      method: "get",
      handler: async (asked) => await contentsOf(asked).checkpoints(pathOf(asked)),
    }),
    ...everywhere("/checkpoints", {
      method: "post",
      status: 201,
      handler: async (asked) => await contentsOf(asked).checkpoint(pathOf(asked)),
    }),
    ...everywhere("/checkpoints/:id", {
      method: "post",
      status: 204,
      handler: async (asked) => {
        requireCheckpoint(asked);
        await contentsOf(asked).restore(pathOf(asked));
        record(asked, "file_write", pathOf(asked));
      },
    }),
    ...everywhere("/checkpoints/:id", {
      method: "delete",
      status: 204,
      handler: async (asked) => {
        requireCheckpoint(asked);
        await contentsOf(asked).deleteCheckpoint(pathOf(asked));
      },
    }),
    ...everywhere("", {
      method: "get",
      handler: async (asked) => {
        const { type, format, content } = asked.request.query;
        const model = await contentsOf(asked).get(pathOf(asked), {
          type: typeof type === "string" ? type : undefined,
          format: typeof format === "string" ? format : undefined,
          withContent: content !== "0",
        });
        send(asked, 200, model);
      },
    }),
    ...everywhere("", {
      method: "post",
      handler: async (asked) => {
        const { type, ext, copy_from: from } = await readBody(created, asked);
        const folder = pathOf(asked);
        const contents = contentsOf(asked);
        const model =
          from === undefined
            ? await contents.create(folder, type, ext)
            : await contents.copy(sandboxPathOf(from), folder);
        record(asked, "file_write", `${HOME}/${model.path}`, model.size);
        asked.response.location(locationOf(asked, model));
        send(asked, 201, model);
      },
    }),
    ...everywhere("", {
      method: "put",
      handler: async (asked) => {
        const path = pathOf(asked);
        const { model, isNew } = await contentsOf(asked).save(path, await newContent(asked));
        record(asked, "file_write", path, model.size);
        if (isNew) asked.response.location(locationOf(asked, model));
        send(asked, isNew ? 201 : 200, model);
      },
    }),
    ...everywhere("", {
      method: "patch",
      handler: async (asked) => {
        const { path } = await readBody(renamed, asked);
        const [from, to] = [pathOf(asked), sandboxPathOf(path)];
        const model = await contentsOf(asked).rename(from, to);
        record(asked, "file_delete", from);
        record(asked, "file_write", to, model.size);
        send(asked, 200, model);
      },
    }),
    ...everywhere("", {
      method: "delete",
      status: 204,
      handler: async (asked) => {
        await contentsOf(asked).delete(pathOf(asked));
        record(asked, "file_delete", pathOf(asked));
      },
    }),
    {
      method: "get",
      path: "/files/*path",
      scope: "files",
      isAtRoot: false,
      // Whatever `?download` says: Jupyter would show HTML as a page of its own.
      handler: async (asked) => {
        const path = pathOf(asked);
        const workspace = asked.services.workspaces.of(asked.principal.id);
        asked.response.setHeader("Content-Security-Policy", "sandbox; default-src 'none'");
        asked.response.setHeader("X-Content-Type-Options", "nosniff");
        await sendFile(asked.response, nameOf(path), (onSize) => workspace.read(path, onSize));
      },
    },
  ];
}

function contentsOf({ services, principal, response, signal }: JupyterRequest): Contents {
  return new Contents({
    workspace: services.workspaces.of(principal.id),
    principal: principal.id,
    maxFileBytes: services.config.MAX_FILE_SIZE,
    hold: (bytes) => holdReply(response, bytes),
    signal,
  });
}

function pathOf({ params: { path = [] } }: JupyterRequest): string {
  return sandboxPath([path].flat());
}

/** @throws {ClientError} 400 */
async function newContent({ body, principal }: JupyterRequest): Promise<NewContent> {
  const { value, document } = await readJsonWithDocument(body, principal.id, "content");
  const { type, format, content, chunk } = parseBody(saved, value);
  if (type === "directory") return { type };
  if (type === "notebook" || (type === undefined && document !== undefined)) {
    if (document === undefined || !isNotebook(document)) {
      throw new ClientError("invalid_request", "The content of a notebook is an object with a list of cells.");
    }
    return { type: "notebook", text: document };
  }
  if (typeof content !== "string") throw new ClientError("invalid_request", "The content of a file is a text.");
  if (format !== "base64") return { type: "file", bytes: Buffer.from(content), chunk };
  if (!BASE64.test(content)) throw new ClientError("invalid_request", "The content is not base64.");
  return { type: "file", bytes: Buffer.from(content, "base64"), chunk };
}

/** @param text laid out by us. Versions before 4 have worksheets. */
function isNotebook(text: string): boolean {
  return text.startsWith("{") && /^ "(?:cells|worksheets)": \[/m.test(text);
}

/** @throws {ClientError} 404: there is only ever one. */
function requireCheckpoint({ params }: JupyterRequest): void {
  if (params.id !== CHECKPOINT_ID) throw new ClientError("not_found", "Checkpoint does not exist");
}

function locationOf(asked: JupyterRequest, { path }: ContentModel): string {
  return `${placeOf(asked)}/api/contents/${path.split("/").map(encodeURIComponent).join("/")}`;
}

function send({ response }: JupyterRequest, status: number, { content, ...model }: ContentModel): void {
  response.status(status);
  sendJson(response, { ...model, hash: null, hash_algorithm: null, content });
}

function record(
  { record: note }: JupyterRequest,
  event: "file_write" | "file_delete",
  path: string,
  size?: number | null,
): void {
  note(event, { path, ...(size != null && { size }) });
}
