import { readFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";

/** What this process may use, and what says so. */
export interface HostLimits {
  /** Whole processors or parts of them. */
  readonly cpus: { readonly count: number; readonly from: string };
  /** Null: no control group limits it. */
  readonly memory: { readonly bytes: number; readonly from: string } | null;
}

/** What version 1 writes where there is no limit is larger, the largest number that is a whole page. */
const UNLIMITED_BYTES = 2 ** 60;

/**
 * The processors and the memory that this process may use: the least that any of its control groups has on its path, of version 1 or 2.
 * A container's limits are those of its group, and Kubernetes limits the pod as well as the container.
 *
 * @param root holds `proc/self/cgroup`, `proc/self/mountinfo` and the file systems that the latter names; another is for tests.
 */
export function readHostLimits(root = "/", cores = os.availableParallelism()): HostLimits {
  const folders = { cpu: foldersOf(root, "cpu"), memory: foldersOf(root, "memory") };
  let cpus = { count: cores, from: `${cores} ${cores === 1 ? "processor" : "processors"}` };
  for (const folder of folders.cpu) {
    const count = cpuLimit(path.join(root, folder));
    if (count !== null && count < cpus.count) cpus = { count, from: `the CPU limit of ${folder}: ${count}` };
  }
  let memory: HostLimits["memory"] = null;
  for (const folder of folders.memory) {
    const bytes = memoryLimit(path.join(root, folder));
    if (bytes === null || bytes >= (memory?.bytes ?? UNLIMITED_BYTES)) continue;
    memory = { bytes, from: `the memory limit of ${folder}: ${Math.floor(bytes / 2 ** 20)} MiB` };
  }
  return { cpus, memory };
}

/** The folders of the groups that this process is in and that have this controller, innermost first. */
function foldersOf(root: string, controller: string): string[] {
  const groups = read(root, "proc/self/cgroup")
    .split("\n")
    .flatMap((line) => {
      const [, controllers, ...rest] = line.split(":");
      return controllers === undefined ? [] : [{ controllers: controllers.split(","), group: rest.join(":") }];
    });
  return read(root, "proc/self/mountinfo")
    .split("\n")
    .flatMap((line) => {
      const [before = "", after = ""] = line.split(" - ");
      const [, , , mounted = "/", place = ""] = before.split(" ").map(unescapedMount);
      const [type, , options = ""] = after.split(" ");
      const isOurs = type === "cgroup2" || (type === "cgroup" && options.split(",").includes(controller));
      if (!isOurs) return [];
      // Version 2 has one hierarchy, whose controllers are not named.
      const own = groups.find(({ controllers }) =>
        type === "cgroup2" ? controllers[0] === "" : controllers.includes(controller),
      );
      return own === undefined ? [] : upwards(place, below(own.group, mounted));
    });
}

/** Without a namespace of its own, a container sees its group's name on the host, and its group mounted as if it were the root. */
function below(group: string, mounted: string): string {
  const isBelow = mounted === "/" || group === mounted || group.startsWith(`${mounted}/`);
  return isBelow && !group.split("/").includes("..") ? group.slice(mounted === "/" ? 0 : mounted.length) : "";
}

function upwards(place: string, group: string): string[] {
  const names = group.split("/").filter((name) => name !== "");
  return names.map((_, index) => path.join(place, ...names.slice(0, names.length - index))).concat(place);
}

function cpuLimit(folder: string): number | null {
  const both = read(folder, "cpu.max").trim().split(" ");
  const [quota, period] =
    both.length === 2 ? both : [read(folder, "cpu.cfs_quota_us").trim(), read(folder, "cpu.cfs_period_us").trim()];
  const count = Number(quota || "max") / Number(period || "0");
  return Number.isFinite(count) && count > 0 ? Math.round(count * 1000) / 1000 : null;
}

function memoryLimit(folder: string): number | null {
  const limits = [
    read(folder, "memory.max"),
    read(folder, "memory.limit_in_bytes"),
    // Includes groups above those that can be seen here.
    /^hierarchical_memory_limit (\d+)$/m.exec(read(folder, "memory.stat"))?.[1] ?? "",
  ]
    .map((text) => Number(text.trim() || "max"))
    .filter((bytes) => bytes > 0 && bytes < UNLIMITED_BYTES);
  return limits.length === 0 ? null : Math.min(...limits);
}

/** Empty if there is none. */
function read(folder: string, file: string): string {
  try {
    return readFileSync(path.join(folder, file), "utf8");
  } catch {
    return "";
  }
}

/** Spaces and the like are octal numbers in mountinfo. */
export function unescapedMount(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
