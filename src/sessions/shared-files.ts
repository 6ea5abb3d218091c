/**
 * A session that works on its principal's workspace, and the files that it has open there.
 *
 * Its state names them by path and by the hash of what they held. Where the workspace has something else by then, the session's descriptor
 * is of no file any more, and using it is an error: it sees neither the half of one file and the half of another, nor overwrites what
 * others wrote. Only what appends goes on, at the end of what is there.
 */
import type { SessionState } from "../wire/guest-messages.ts";
import { HOME, isKept, parentOf } from "../workspaces/paths.ts";
import type { WorkspaceIndex } from "../workspaces/workspace-index.ts";
import type { OpenContents } from "./format.ts";

type Opened = Pick<SessionState["streams"][number], "path" | "unnamed" | "stale">;

const ACCESS_MODE = 3;
const WRITE_ONLY = 1;
const APPEND = 0o2000;

/** The files that a session has open, by which {@link fitted} knows later whether they are the same. @param files as the session sees them. */
export function openContentsOf(state: SessionState, files: WorkspaceIndex): OpenContents {
  const contents = new Map<string, string>();
  for (const opened of [...state.streams, ...state.mappings]) {
    const entry = isFileOfWorkspace(opened) ? files.get(opened.path) : undefined;
    if (entry?.kind === "file") contents.set(opened.path, entry.sha256);
  }
  return contents;
}

/** Paths of what a session has open and others have changed or deleted. */
export function staleFilesOf({ streams, mappings }: SessionState): readonly string[] {
  return [...new Set([...streams, ...mappings].filter(({ stale }) => stale).map(({ path }) => path))].sort();
}

/** A session's state as it can be put on the files that are in its workspace now. */
export function fitted(state: SessionState, openContents: OpenContents, files: WorkspaceIndex): SessionState {
  const isSame = ({ path }: Opened) => {
    const [before, now] = [openContents.get(path), files.get(path)];
    // What was no file was a folder that was being listed.
    return now?.kind === "file" ? now.sha256 === before : now?.kind === "folder" && before === undefined;
  };
  const mayAppend = ({ path, flags }: SessionState["streams"][number]) =>
    (flags & ACCESS_MODE) === WRITE_ONLY && (flags & APPEND) !== 0 && files.get(path)?.kind === "file";
  const isFolder = (path: string) => files.get(path)?.kind === "folder";
  return {
    ...state,
    currentPath: !isKept(state.currentPath) || isFolder(state.currentPath) ? state.currentPath : HOME,
    streams: state.streams.map((stream) =>
      !isFileOfWorkspace(stream) || isSame(stream) || mayAppend(stream) ? stream : { ...stream, stale: true },
    ),
    mappings: state.mappings.map((mapping) =>
      !isFileOfWorkspace(mapping) || isSame(mapping) ? mapping : { ...mapping, stale: true },
    ),
    // The workspace has none. Where it has something of the name now, that is it.
    links: state.links.filter(({ path }) => files.get(path) === undefined && isFolder(parentOf(path))),
  };
}

function isFileOfWorkspace({ path, unnamed, stale }: Opened): boolean {
  return unnamed === undefined && !stale && isKept(path);
}
