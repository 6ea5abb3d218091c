import { z } from "zod";
import { ClientError, type ErrorCode } from "../../shared/errors.ts";
import type { FileEntry } from "../../wire/messages.ts";
import { HOME, nameOf, parentOf } from "../../workspaces/paths.ts";
import { checkFilename } from "../filenames.ts";
import { sendFile } from "../resources/file-collection.ts";
import { type Asked, done, download, type Route, reply, route } from "../routes.ts";
import { bytes, count, timestamp } from "../schemas.ts";

const PLOT_FOLDERS = ["/plots/matplotlib", "/plots/seaborn"];

/** As {@link reply}; the contract has no `timestamp` here. */
const untimed = <Shape extends z.ZodRawShape>(description: string, shape: Shape): ReturnType<typeof reply<Shape>> => ({
  ...reply(description, shape),
  schema: z.looseObject({ success: z.literal(true), ...shape }),
  send: (response, value) => response.json({ success: true, ...value }),
});

const NAMED: readonly ErrorCode[] = ["invalid_filename", "not_found", "store_unavailable"];
const workspaceOf = ({ services, principal }: Asked<unknown, unknown, unknown>) => services.workspaces.of(principal.id);

/** Uploads, the home folder and plots, each under endpoints of its own. */
export const legacyFileRoutes: readonly Route[] = [
  route({
    method: "get",
    path: "/api/uploaded-files",
    scope: "files",
    tag: "Files",
    operation: "listUploads",
    summary: "List uploads, newest first",
    reply: untimed("The uploads.", {
      files: z.array(z.looseObject({ filename: z.string(), size: bytes, uploaded: timestamp, modified: timestamp })),
      count,
      uploadDir: z.string(),
    }),
    errors: ["store_unavailable"],
    handler: async (asked) => {
      const uploads = await workspaceOf(asked).uploads();
      const files = uploads.map(({ filename, size, uploadedAtMs }) => ({
        filename,
        size,
        ...uploadTimes(uploadedAtMs),
      }));
      // The name clients know the folder by; where it is on the host is no concern of theirs.
      return { files, count: files.length, uploadDir: "uploads" };
    },
  }),

  route({
    method: "delete",
    path: "/api/uploaded-files/:filename",
    scope: "files",
    tag: "Files",
    operation: "deleteUpload",
    summary: "Delete an upload",
    reply: done("It is gone."),
    errors: NAMED,
    handler: (asked) => remove(asked, (workspace, filename) => workspace.removeUpload(filename)),
  }),

  route({
    method: "get",
    path: "/api/pyodide-files",
    scope: "files",
    tag: "Files",
    operation: "listFiles",
    summary: "List the files in /home/pyodide",
    reply: untimed("The files.", {
      result: z.looseObject({
        success: z.literal(true),
        files: z.array(z.looseObject({ name: z.string(), size: bytes, modified: timestamp })),
        count,
      }),
    }),
    errors: ["store_unavailable"],
    handler: async (asked) => {
      const files = filesIn(await workspaceOf(asked).list(), HOME).map((file) => ({
        name: nameOf(file.path),
        ...sizeAndTime(file),
      }));
      return { result: { success: true as const, files, count: files.length } };
    },
  }),

  route({
    method: "get",
    path: "/api/pyodide-files/:filename",
    scope: "files",
    tag: "Files",
    operation: "readFile",
    summary: "Download a file from /home/pyodide",
    reply: download,
    errors: NAMED,
    handler: async (asked) => {
      const filename = checkFilename(asked.params.filename);
      const path = `${HOME}/${filename}`;
      await sendFile(asked.response, filename, (onSize) => workspaceOf(asked).read(path, onSize));
    },
  }),

  route({
    method: "delete",
    path: "/api/pyodide-files/:filename",
    scope: "files",
    tag: "Files",
    operation: "deleteFile",
    summary: "Delete a file from /home/pyodide",
    reply: done("It is gone."),
    errors: NAMED,
    handler: (asked) =>
      remove(asked, async (workspace, filename) => {
        const entry = await workspace.stat(`${HOME}/${filename}`);
        // A folder, too, is no file of the contract's.
        if (entry?.kind !== "file") throw new ClientError("not_found", `File ${filename} not found`);
        await workspace.remove(entry.path);
      }),
  }),

  route({
    method: "get",
    path: "/api/file-info/:filename",
    scope: "files",
    tag: "Files",
    operation: "fileInfo",
    summary: "Where a file is, and how large",
    reply: untimed("The files of this name.", {
      filename: z.string(),
      uploadedFile: z.looseObject({
        exists: z.boolean(),
        size: bytes.optional(),
        uploaded: timestamp.optional(),
        modified: timestamp.optional(),
      }),
      pyodideFile: z.looseObject({
        exists: z.boolean(),
        size: bytes.optional(),
        modified: timestamp.optional(),
      }),
    }),
    errors: ["invalid_filename", "store_unavailable"],
    handler: async (asked) => {
      const filename = checkFilename(asked.params.filename);
      const workspace = workspaceOf(asked);
      const [uploads, entry] = await Promise.all([workspace.uploads(), workspace.stat(`${HOME}/${filename}`)]);
      const upload = uploads.find((other) => other.filename === filename);
      return {
        filename,
        uploadedFile: upload
          ? { exists: true, size: upload.size, ...uploadTimes(upload.uploadedAtMs) }
          : { exists: false },
        pyodideFile: entry?.kind === "file" ? { exists: true, ...sizeAndTime(entry) } : { exists: false },
      };
    },
  }),

  route({
    method: "post",
    path: "/api/extract-plots",
    scope: "files",
    tag: "Files",
    operation: "listPlots",
    summary: "List the plots that code saved",
    description: "Files under /plots/matplotlib and /plots/seaborn.",
    reply: reply("Their paths.", {
      extracted_files: z.array(z.string()).meta({ example: ["/plots/matplotlib/figure.png"] }),
      count,
    }),
    errors: ["store_unavailable"],
    handler: async (asked) => {
      const entries = await workspaceOf(asked).list();
      const paths = PLOT_FOLDERS.flatMap((folder) => filesIn(entries, folder)).map(({ path }) => path);
      return { extracted_files: paths, count: paths.length };
    },
  }),

  route({
    method: "get",
    path: "/api/plots/:library/:filename",
    scope: "files",
    tag: "Files",
    operation: "readPlot",
    summary: "Download a plot",
    reply: download,
    errors: NAMED,
    handler: async (asked) => {
      const library = checkFilename(asked.params.library);
      const filename = checkFilename(asked.params.filename);
      const path = `/plots/${library}/${filename}`;
      await sendFile(asked.response, filename, (onSize) => workspaceOf(asked).read(path, onSize));
    },
  }),

  route({
    method: "post",
    path: "/api/clear-all-files",
    scope: "files",
    tag: "Files",
    operation: "clearFiles",
    summary: "Delete all of the caller's files",
    reply: reply("They are gone.", {
      message: z.string(),
      cleared: z.looseObject({ uploaded_files: z.int(), pyodide_files: z.int() }),
    }),
    errors: ["store_unavailable"],
    handler: async (asked) => {
      const { uploads, files } = await workspaceOf(asked).clear();
      const cleared = { uploaded_files: uploads, pyodide_files: files };
      asked.record("files_clear", cleared);
      return { message: "All files cleared successfully", cleared };
    },
  }),
];

async function remove(
  asked: Asked<{ readonly filename: string }, unknown, unknown>,
  from: (workspace: ReturnType<typeof workspaceOf>, filename: string) => Promise<void>,
) {
  const filename = checkFilename(asked.params.filename);
  await from(workspaceOf(asked), filename);
  asked.record("file_delete", { filename });
  return { message: `File ${filename} deleted successfully` };
}

function sizeAndTime({ size, mtimeMs }: FileEntry): { size: number; modified: string } {
  return { size, modified: new Date(mtimeMs).toISOString() };
}

function uploadTimes(uploadedAtMs: number): { uploaded: string; modified: string } {
  const uploaded = new Date(uploadedAtMs).toISOString();
  return { uploaded, modified: uploaded };
}

function filesIn(entries: readonly FileEntry[], folder: string): FileEntry[] {
  return entries.filter(({ kind, path }) => kind === "file" && parentOf(path) === folder);
}
