import type { Services } from "../../service/execution-service.ts";
import type { ErrorCode } from "../../shared/errors.ts";
import type { Route } from "../routes.ts";
import { type FileCollection, fileCollection } from "./file-collection.ts";

const STORING: readonly ErrorCode[] = ["workspace_full", "storage_full", "store_unavailable"];

/** `/api/files`: the caller's workspace. */
export const fileRoutes: readonly Route[] = fileCollection({
  base: "/api/files",
  scope: "files",
  tag: "Files",
  what: "WorkspaceFile",
  whose: "the caller's workspace",
  errors: { read: ["store_unavailable", "content_gone"], write: STORING },
  collectionOf: ({ services, principal }) => workspaceFiles(services, principal.id),
});

export function workspaceFiles({ workspaces }: Pick<Services, "workspaces">, principal: string): FileCollection {
  const workspace = workspaces.of(principal);
  return {
    list: async () => await workspace.list(),
    read: async (path, onSize) => await workspace.read(path, onSize),
    write: async (path, content) => await workspace.put(path, content),
    remove: async (path) => await workspace.remove(path),
  };
}
