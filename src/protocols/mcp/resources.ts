/** Files as resources: those of the workspace, and of sessions. */
import { isUtf8 } from "node:buffer";
import type { ListResourcesResult, ReadResourceResult, ResourceTemplate } from "@modelcontextprotocol/sdk/types.js";
import { ErrorCode, McpError } from "@modelcontextprotocol/sdk/types.js";
import { workspaceFiles } from "../../http/resources/files.ts";
import { sessionFiles } from "../../http/resources/sessions.ts";
import { ClientError } from "../../shared/errors.ts";
import type { FileEntry } from "../../wire/messages.ts";
import { nameOf } from "../../workspaces/paths.ts";
import { imageType, pathOf } from "./file-tools.ts";
import { requireScopes, type ToolCall } from "./tool.ts";

const PAGE = 100;
/** Of these, the latest used, files are listed; files of others are found by their templates. */
const MAX_SESSIONS = 20;
const MAX_BYTES = 5 * 1024 * 1024;
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

type Call = Pick<ToolCall, "services" | "principal" | "signal">;

/** @throws {ClientError} @throws {McpError} for a cursor that is none of ours. */
export async function listResources(call: Call, cursor: string | undefined): Promise<ListResourcesResult> {
  if (!call.principal.scopes.has("files")) return { resources: [] };
  const from = cursor === undefined ? 0 : Number(/^[0-9]{1,9}$/.exec(cursor)?.[0] ?? Number.NaN);
  if (Number.isNaN(from)) throw new McpError(ErrorCode.InvalidParams, "Unknown cursor");
  const all = [...(await workspaceResources(call)), ...(await sessionResources(call))];
  const resources = all.slice(from, from + PAGE);
  return { resources, ...(all.length > from + PAGE && { nextCursor: String(from + PAGE) }) };
}

async function workspaceResources({ services, principal }: Call) {
  const files = await workspaceFiles(services, principal.id).list();
  return files.flatMap((entry) => resourceOf(entry, WORKSPACE, "workspace"));
}

async function sessionResources({ services, principal, signal }: Call) {
  if (!principal.scopes.has("execute")) return [];
  const sessions = [...(await services.sessions.list(principal.id))]
    .sort((a, b) => b.lastUsedAtMs - a.lastUsedAtMs)
    .slice(0, MAX_SESSIONS);
  const lists = sessions.map(async ({ id }) => {
    // It may have ended, or be damaged: the others' files are there all the same.
    const files = await sessionFiles(services, principal.id, id, signal)
      .list()
      .catch((error) => {
        if (error instanceof ClientError) return [];
        throw error;
      });
    return files.flatMap((entry) => resourceOf(entry, `${SESSIONS}/${id}`, `session ${id}`));
  });
  return (await Promise.all(lists)).flat();
}

function resourceOf({ kind, path, size, mtimeMs }: FileEntry, base: string, whose: string) {
  if (kind !== "file") return [];
  const uri = base + path.split("/").map(encodeURIComponent).join("/");
  const lastModified = new Date(mtimeMs).toISOString();
  return [{ uri, name: nameOf(path), description: `${path} of the ${whose}`, size, annotations: { lastModified } }];
}

/** @throws {ClientError} @throws {McpError} for what is not there, or is too large. */
export async function readResource(call: Call, uri: string): Promise<ReadResourceResult> {
  const { services, principal, signal } = call;
  const missing = () => new McpError(NOT_FOUND, "Resource not found", { uri });
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
    return { contents: [contentsOf(uri, await files.read(names))] };
  } catch (error) {
    // What is no URI of ours names nothing.
    if (error instanceof URIError) throw missing();
    if (error instanceof ClientError && (error.status === 404 || error.status === 400)) throw missing();
    throw error;
  }
}

/** @throws {McpError} */
function contentsOf(uri: string, content: Uint8Array): ReadResourceResult["contents"][number] {
  if (content.length > MAX_BYTES)
    throw new McpError(
      ErrorCode.InvalidParams,
      `The file has ${content.length} bytes, more than ${MAX_BYTES}: use files_read, which reads a part.`,
    );
  if (isUtf8(content) && !content.includes(0))
    return { uri, mimeType: "text/plain", text: Buffer.from(content).toString("utf8") };
  const blob = Buffer.from(content).toString("base64");
  return { uri, mimeType: imageType(content) ?? "application/octet-stream", blob };
}
