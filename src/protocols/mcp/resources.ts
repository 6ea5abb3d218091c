/** Files as resources: those of the workspace, and of sessions. */
import type {
  ListResourcesResult,
  ReadResourceResult,
  Resource,
  ResourceTemplate,
} from "@modelcontextprotocol/sdk/types.js";
import { ErrorCode, McpError } from "@modelcontextprotocol/sdk/types.js";
import { workspaceFiles } from "../../http/resources/files.ts";
import { sessionFiles } from "../../http/resources/sessions.ts";
import { ClientError } from "../../shared/errors.ts";
import type { FileEntry } from "../../wire/messages.ts";
import { MAX_PATH_BYTES, nameOf } from "../../workspaces/paths.ts";
import { imageType, isText, pathOf } from "./file-tools.ts";
import { requireScopes, type ToolCall } from "./tool.ts";

const PAGE = 100;
/** Of these, the latest used, files are listed; files of others are found by their templates. */
const MAX_SESSIONS = 20;
/** More files of one place are found by its template. */
const MAX_FILES_OF_EACH = 500;
const MAX_BYTES = 5 * 1024 * 1024;
/** Of a path, each byte of it escaped, and what stands before it. */
const MAX_URI_CHARACTERS = 3 * MAX_PATH_BYTES + 200;
/** The specification's own code. */
const NOT_FOUND = -32002;

const WORKSPACE = "pyodide://workspace";
const SESSIONS = "pyodide://sessions";

export const RESOURCE_TEMPLATES: readonly ResourceTemplate[] = [
  {
    name: "workspace-file",
    title: "File of the workspace",
    uriTemplate: `${WORKSPACE}/{+path}`,
    description: "What code without a session works on. The path is the sandbox's: home/pyodide/data.csv.",
  },
  {
    name: "session-file",
    title: "File of a session",
    uriTemplate: `${SESSIONS}/{session}/{+path}`,
    description: "The path is the sandbox's: home/pyodide/data.csv.",
  },
];

type Call = Pick<ToolCall, "services" | "principal" | "signal" | "hold">;

/** Whose files are listed, one after another. */
interface Place {
  /** Empty: the workspace. */
  readonly session: string;
  readonly list: () => Promise<readonly FileEntry[]>;
}

/**
 * A page goes through places until it is full: what is behind it is neither read nor described.
 *
 * @throws {ClientError} @throws {McpError} for a cursor that is none of ours, or whose session has ended.
 */
export async function listResources(call: Call, cursor = "0"): Promise<ListResourcesResult> {
  if (!call.principal.scopes.has("files")) return { resources: [] };
  const places = await placesOf(call);
  const [, from, begins = ""] = /^([0-9]{1,9})(?:@(.+))?$/.exec(cursor) ?? [];
  const first = places.findIndex(({ session }) => session === begins);
  if (from === undefined || first < 0) throw new McpError(ErrorCode.InvalidParams, "Unknown cursor");
  const resources: Resource[] = [];
  let offset = Number(from);
  for (const { session, list } of places.slice(first)) {
    if (resources.length === PAGE) return { resources, nextCursor: cursorOf(session, 0) };
    const files = (await list()).filter(({ kind }) => kind === "file").slice(0, MAX_FILES_OF_EACH);
    const shown = files.slice(offset, offset + PAGE - resources.length);
    resources.push(...shown.map((entry) => resourceOf(entry, session)));
    const end = offset + shown.length;
    if (end < files.length) return { resources, nextCursor: cursorOf(session, end) };
    offset = 0;
  }
  return { resources };
}

function cursorOf(session: string, offset: number): string {
  return session === "" ? String(offset) : `${offset}@${session}`;
}

async function placesOf({ services, principal, signal }: Call): Promise<readonly Place[]> {
  const workspace = { session: "", list: async () => await workspaceFiles(services, principal.id).list() };
  if (!principal.scopes.has("execute")) return [workspace];
  const sessions = [...(await services.sessions.list(principal.id))]
    .sort((a, b) => b.lastUsedAtMs - a.lastUsedAtMs)
    .slice(0, MAX_SESSIONS)
    .map(({ id }) => ({
      session: id,
      // It may have ended, or be damaged: the others' files are there all the same.
      list: async () =>
        await sessionFiles(services, principal.id, id, signal)
          .list()
          .catch((error) => {
            if (error instanceof ClientError) return [];
            throw error;
          }),
    }));
  return [workspace, ...sessions];
}

function resourceOf({ path, size, mtimeMs }: FileEntry, session: string): Resource {
  const [base, whose] = session === "" ? [WORKSPACE, "workspace"] : [`${SESSIONS}/${session}`, `session ${session}`];
  const uri = base + path.split("/").map(encodeURIComponent).join("/");
  const lastModified = new Date(mtimeMs).toISOString();
  return { uri, name: nameOf(path), description: `${path} of the ${whose}`, size, annotations: { lastModified } };
}

/** @throws {ClientError} @throws {McpError} for what is not there, or is too large. */
export async function readResource(call: Call, uri: string): Promise<ReadResourceResult> {
  const { services, principal, signal } = call;
  const missing = () => new McpError(NOT_FOUND, "Resource not found", { uri: uri.slice(0, MAX_URI_CHARACTERS) });
  if (uri.length > MAX_URI_CHARACTERS) throw missing();
  const match = /^pyodide:\/\/(?:workspace|sessions\/(?<session>[^/]+))\/(?<path>.+)$/.exec(uri);
  if (match?.groups === undefined) throw missing();
  const { session, path = "" } = match.groups;
  requireScopes(call, session === undefined ? ["files"] : ["files", "execute"]);
  try {
    const names = pathOf(path.split("/").map(decodeURIComponent).join("/"));
    const files =
      session === undefined
        ? workspaceFiles(services, principal.id)
        : sessionFiles(services, principal.id, decodeURIComponent(session), signal);
    const content = await files.read(names, (bytes) => {
      if (bytes > MAX_BYTES) throw tooLarge(bytes);
      call.hold(bytes);
    });
    return { contents: [contentsOf(uri, content)] };
  } catch (error) {
    // What is no URI of ours names nothing.
    if (error instanceof URIError) throw missing();
    if (error instanceof ClientError && (error.status === 404 || error.status === 400)) throw missing();
    throw error;
  }
}

function tooLarge(bytes: number): McpError {
  return new McpError(
    ErrorCode.InvalidParams,
    `The file has ${bytes} bytes, more than ${MAX_BYTES}: use files_read, which reads a part.`,
  );
}

function contentsOf(uri: string, content: Uint8Array): ReadResourceResult["contents"][number] {
  if (isText(content)) return { uri, mimeType: "text/plain", text: Buffer.from(content).toString("utf8") };
  const blob = Buffer.from(content).toString("base64");
  return { uri, mimeType: imageType(content) ?? "application/octet-stream", blob };
}
