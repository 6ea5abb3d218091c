import type { HostFacts, IsolationPlan, Limit } from "./plan.ts";
import { LIMIT_NAMES, type ProcessFacts } from "./process-facts.ts";

const ALL = [
  "own-user",
  "user-namespace",
  "pid-namespace",
  "network-namespace",
  "mount-namespace",
  "ipc-namespace",
  "uts-namespace",
  "scratch-root",
  "no-new-privileges",
  "capabilities",
  "resource-limits",
  "seccomp",
] as const;

export type LayerName = (typeof ALL)[number];

/** One layer between a sandbox and the host, as `/api/status` and `doctor` show it. */
export interface IsolationLayer {
  readonly name: LayerName;
  /** Seen to take effect on this machine, by this process, at start. */
  readonly active: boolean;
  /** What was observed, or why the layer is not there. */
  readonly detail: string;
}

/** What `isolation/probe.ts` prints: which of the things it should not be able to do it could do. */
export interface ProbeAnswer {
  readonly rootEntries: readonly string[];
  readonly readsHostFile: boolean;
  readonly reachesHost: boolean;
  readonly startsProcess: boolean;
  /** Paths that it was given to read and could not. */
  readonly unreadable: readonly string[];
}

/** What was seen of a Deno process that ran under a plan, from inside and from outside. */
export interface Evidence {
  readonly plan: IsolationPlan;
  readonly host: HostFacts;
  readonly server: ProcessFacts;
  readonly sandbox: ProcessFacts;
  readonly answer: ProbeAnswer;
  /** The limits that were asked for. */
  readonly limits: Readonly<Partial<Record<Limit | "core" | "fsize", number>>>;
}

/** @returns every layer as inactive, all for one reason. */
export const noLayers = (why: string): IsolationLayer[] => ALL.map((name) => ({ name, active: false, detail: why }));

/** Turns observations into rows. Nothing here is taken from the plan alone: a layer counts if its effect was seen. */
export function judgeLayers(evidence: Evidence): IsolationLayer[] {
  const judge: Readonly<Record<LayerName, (evidence: Evidence) => [active: boolean, detail: string]>> = {
    "own-user": ownUser,
    "user-namespace": userNamespace,
    "pid-namespace": namespace("pid", "no process of the host can be seen or signalled"),
    "network-namespace": networkNamespace,
    "mount-namespace": namespace("mnt", "mounts of its own"),
    "ipc-namespace": namespace("ipc", "no shared memory or queue of the host"),
    "uts-namespace": namespace("uts", "a host name of its own"),
    "scratch-root": scratchRoot,
    "no-new-privileges": ({ sandbox }) => [
      sandbox.status.NoNewPrivs === "1",
      `NoNewPrivs ${sandbox.status.NoNewPrivs}`,
    ],
    capabilities,
    "resource-limits": resourceLimits,
    seccomp,
  };
  return ALL.map((name) => {
    const [active, detail] = judge[name](evidence);
    return { name, active, detail };
  });
}

const firstNumber = (line: string | undefined) => Number(line?.split(/\s+/)[0]);

function ownUser({ server, sandbox, host }: Evidence): [boolean, string] {
  const [mine, theirs] = [firstNumber(server.status.Uid), firstNumber(sandbox.status.Uid)];
  if (mine !== theirs) return [true, `user ${theirs}, the server is ${mine}`];
  return [false, host.root ? "the server is root and may not change users" : "needs a server that runs as root"];
}

function differs(kind: string, { server, sandbox }: Evidence): boolean {
  const [mine, theirs] = [server.namespaces[kind], sandbox.namespaces[kind]];
  return mine !== undefined && theirs !== undefined && mine !== theirs;
}

function namespace(kind: string, meaning: string) {
  return (evidence: Evidence): [boolean, string] =>
    differs(kind, evidence) ? [true, meaning] : [false, "shared with the server"];
}

function userNamespace(evidence: Evidence): [boolean, string] {
  if (differs("user", evidence)) return [true, "privileges inside mean nothing outside"];
  return [false, evidence.plan.identity === "own-user" ? "not needed: a user id of its own instead" : "not available"];
}

function networkNamespace(evidence: Evidence): [boolean, string] {
  const devices = evidence.sandbox.networkDevices;
  const alone = differs("net", evidence) && devices.every((device) => device === "lo");
  if (alone && !evidence.answer.reachesHost) return [true, "no interface but its own loopback"];
  return [false, evidence.answer.reachesHost ? "reached a port of the server" : `sees ${devices.join(", ")}`];
}

function scratchRoot({ answer }: Evidence): [boolean, string] {
  if (answer.readsHostFile) return [false, "files of the host can be read"];
  const entries = answer.rootEntries.toSorted().join(" ");
  return [answer.rootEntries.length > 0 && !answer.rootEntries.includes("etc"), `/ holds ${entries}`];
}

function capabilities({ sandbox }: Evidence): [boolean, string] {
  const held = ["CapInh", "CapPrm", "CapEff", "CapAmb"].filter((name) => !/^0+$/.test(sandbox.status[name] ?? ""));
  if (held.length > 0) return [false, `not empty: ${held.join(", ")}`];
  return [true, `none held; bounding set ${sandbox.status.CapBnd}`];
}

function resourceLimits({ sandbox, limits }: Evidence): [boolean, string] {
  const rows = Object.entries(limits) as [Limit | "core" | "fsize", number][];
  const missing = rows.filter(([name, value]) => {
    const actual = sandbox.hardLimits[LIMIT_NAMES[name]];
    // The kernel rounds some limits down to pages or blocks.
    return actual === undefined || actual > value;
  });
  if (missing.length > 0) return [false, `not in force: ${missing.map(([name]) => name).join(", ")}`];
  return [true, rows.map(([name, value]) => `${name} ${value}`).join(", ")];
}

function seccomp({ plan, server, sandbox, answer }: Evidence): [boolean, string] {
  // A container's runtime may have put a filter on the server already; that one is inherited and not ours.
  const filters = (facts: ProcessFacts) =>
    Number(facts.status.Seccomp_filters ?? (facts.status.Seccomp === "2" ? 1 : 0));
  if (filters(sandbox) > filters(server) && !answer.startsProcess)
    return [true, "allow-list of system calls; no new process, no socket"];
  const inherited = sandbox.status.Seccomp === "2" ? "; the container's own filter is in force" : "";
  return [false, plan.tool === "bubblewrap" ? `not in force${inherited}` : `needs bubblewrap${inherited}`];
}
