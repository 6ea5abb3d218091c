import { type Response, Router } from "express";
import type { Services } from "../../service/execution-service.ts";
import { ClientError } from "../../shared/errors.ts";
import type { FileEntry } from "../../wire/messages.ts";
import { callerOf } from "../caller.ts";
import { checkFilename } from "../filenames.ts";
import { principalOf, requireScope } from "../middleware/authentication.ts";
import { sendFile, serveFileCollection } from "./file-collection.ts";

const HOME = "/home/pyodide";
const PLOT_FOLDERS = ["/plots/matplotlib", "/plots/seaborn"];

/** The caller's files: uploads, what lies in the home folder, and plots. */
export function fileRoutes(services: Services): Router {
  const router = Router();
  const { workspaces } = services;
  const workspaceOf = (response: Response) => workspaces.of(principalOf(response).id);
  const timestamp = () => new Date().toISOString();
  router.use("/api/files", requireScope("files"));
  router.use(["/api/uploaded-files", "/api/pyodide-files", "/api/file-info"], requireScope("files"));
  router.use(["/api/extract-plots", "/api/plots", "/api/clear-all-files"], requireScope("files"));

  serveFileCollection(router, "/api/files", services, (_request, response) => {
    const workspace = workspaceOf(response);
    return {
      list: async () => await workspace.list(),
      read: async (path) => await workspace.read(path),
      write: async (path, content) => await workspace.put(path, content),
      remove: async (path) => await workspace.remove(path),
    };
  });

  router.get("/api/uploaded-files", async (_request, response) => {
    const uploads = await workspaceOf(response).uploads();
    const files = uploads.map(({ filename, size, uploadedAtMs }) => ({ filename, size, ...uploadTimes(uploadedAtMs) }));
    // The name clients know the folder by; where it is on the host is no concern of theirs.
    response.json({ success: true, files, count: files.length, uploadDir: "uploads" });
  });

  router.delete("/api/uploaded-files/:filename", async (request, response) => {
    const filename = checkFilename(request.params.filename);
    await workspaceOf(response).removeUpload(filename);
    services.securityLog?.append({ event: "file_delete", ...callerOf(request, response), details: { filename } });
    response.json({ success: true, message: `File ${filename} deleted successfully`, timestamp: timestamp() });
  });

  router.get("/api/pyodide-files", async (_request, response) => {
    const files = filesIn(await workspaceOf(response).list(), HOME).map(({ path, size, mtimeMs }) => ({
      name: path.slice(HOME.length + 1),
      size,
      modified: new Date(mtimeMs).toISOString(),
    }));
    response.json({ success: true, result: { success: true, files, count: files.length } });
  });

  router.get("/api/pyodide-files/:filename", async (request, response) => {
    const filename = checkFilename(request.params.filename);
    const content = await workspaceOf(response).read(`${HOME}/${filename}`);
    sendFile(response, filename, content);
  });

  router.delete("/api/pyodide-files/:filename", async (request, response) => {
    const filename = checkFilename(request.params.filename);
    const workspace = workspaceOf(response);
    const entry = await workspace.stat(`${HOME}/${filename}`);
    if (entry?.kind !== "file") throw new ClientError("not_found", `File ${filename} not found`);
    await workspace.remove(entry.path);
    services.securityLog?.append({ event: "file_delete", ...callerOf(request, response), details: { filename } });
    response.json({ success: true, message: `File ${filename} deleted successfully`, timestamp: timestamp() });
  });

  router.get("/api/file-info/:filename", async (request, response) => {
    const filename = checkFilename(request.params.filename);
    const workspace = workspaceOf(response);
    const [uploads, entry] = await Promise.all([workspace.uploads(), workspace.stat(`${HOME}/${filename}`)]);
    const upload = uploads.find((other) => other.filename === filename);
    response.json({
      success: true,
      filename,
      uploadedFile: upload
        ? { exists: true, size: upload.size, ...uploadTimes(upload.uploadedAtMs) }
        : { exists: false },
      pyodideFile:
        entry?.kind === "file"
          ? { exists: true, size: entry.size, modified: new Date(entry.mtimeMs).toISOString() }
          : { exists: false },
    });
  });

  router.post("/api/extract-plots", async (_request, response) => {
    const entries = await workspaceOf(response).list();
    const plots = PLOT_FOLDERS.flatMap((folder) => filesIn(entries, folder));
    const paths = plots.map(({ path }) => path);
    response.json({ success: true, extracted_files: paths, count: paths.length, timestamp: timestamp() });
  });

  router.get("/api/plots/:library/:filename", async (request, response) => {
    const library = checkFilename(request.params.library);
    const filename = checkFilename(request.params.filename);
    sendFile(response, filename, await workspaceOf(response).read(`/plots/${library}/${filename}`));
  });

  router.post("/api/clear-all-files", async (request, response) => {
    const { uploads, files } = await workspaceOf(response).clear();
    const cleared = { uploaded_files: uploads, pyodide_files: files };
    services.securityLog?.append({ event: "files_clear", ...callerOf(request, response), details: cleared });
    response.json({ success: true, message: "All files cleared successfully", cleared, timestamp: timestamp() });
  });
  return router;
}

function uploadTimes(uploadedAtMs: number): { uploaded: string; modified: string } {
  const uploaded = new Date(uploadedAtMs).toISOString();
  return { uploaded, modified: uploaded };
}

function filesIn(entries: readonly FileEntry[], folder: string): FileEntry[] {
  return entries.filter(
    ({ kind, path }) =>
      kind === "file" && path.startsWith(`${folder}/`) && !path.slice(folder.length + 1).includes("/"),
  );
}
