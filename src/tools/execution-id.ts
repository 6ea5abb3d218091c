import { randomBytes } from "node:crypto";

/** Ids of executions, `server.random`: each tells which server it is on, and no client can guess one. */
const ID = /^([\w-]{12})\.[\w-]{32}$/;

/** A name for a server: another at each start, for what it runs is gone by then. */
export function newServerName(): string {
  return randomBytes(9).toString("base64url");
}

export function newExecutionId(server: string): string {
  return `${server}.${randomBytes(24).toString("base64url")}`;
}

/** Whose execution an id is; null: it is no id. */
export function serverOf(id: string): string | null {
  return ID.exec(id)?.[1] ?? null;
}

/** Whether an execution is a principal's: to all others it is not there. */
export function belongsTo(principal: string, execution: { readonly principal: string } | undefined): boolean {
  return execution?.principal === principal;
}
