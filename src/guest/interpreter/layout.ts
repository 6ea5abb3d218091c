import { ARCHIVE_MTIME_MS } from "../files/archive-filesystem.ts";
import { HOME_LINKS, WRITABLE_ROOTS } from "../files/writable.ts";
import { Devices } from "../io/device.ts";
import type { HostConnection } from "../io/host-connection.ts";
import type { FileSystem, Module, Node } from "./emscripten.ts";
import type { Boot, Program } from "./load.ts";

/** Where an environment's archive is mounted, and a caller's own packages. */
export const ENVIRONMENT_PATH = "/lib/environment";
export const PACKAGES_PATH = "/lib/packages";
/**
 * Where our own Python modules are. Python's `warnings` and `logging` pass over frames of files with both words of this name in their paths,
 * as they do for its import system: what is said about a call of ours names the line of user code that made it.
 */
export const RUNNER_PATH = "/lib/importlib_bootstrap";

/** Devices, our own Python modules, and the folders that everything else is mounted on. */
export function layOut({ module }: Program, { sources }: Boot, host: HostConnection): Devices {
  const fs = module.FS;
  const devices = new Devices(fs, host);
  devices.install();
  const encoder = new TextEncoder();
  for (const [path, source] of Object.entries(sources)) {
    const target = `${RUNNER_PATH}/${path}`;
    fs.mkdirTree(target.slice(0, target.lastIndexOf("/")));
    fs.writeFile(target, encoder.encode(source));
  }
  for (const path of [ENVIRONMENT_PATH, PACKAGES_PATH, ...WRITABLE_ROOTS, "/mnt"]) fs.mkdirTree(path);
  for (const link of HOME_LINKS) fs.symlink(WRITABLE_ROOTS[0], link);
  nameFoldersByLinks(fs);
  setTimes(fs, ARCHIVE_MTIME_MS);
  return devices;
}

/** A working directory that is entered by a link to the home folder has that name, as where the link is a folder: what code written for there compares with. */
function nameFoldersByLinks(fs: FileSystem): void {
  const [home] = WRITABLE_ROOTS;
  const { chdir } = fs;
  fs.chdir = (path) => {
    const asked = resolved(path, fs.currentPath);
    chdir(path);
    const link = HOME_LINKS.find((candidate) => `${asked}/`.startsWith(`${candidate}/`));
    // One that leads elsewhere on its way has the name of where it ends.
    if (link !== undefined && fs.currentPath === home + asked.slice(link.length)) fs.currentPath = asked;
  };
}

function resolved(path: string, folder: string): string {
  const parts: string[] = [];
  for (const part of `${path.startsWith("/") ? "" : folder}/${path}`.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}

/** Python's import system remembers folders' times: they must not differ from process to process. */
function setTimes(fs: Module["FS"], timeMs: number): void {
  const seen = new Set<Node>();
  const visit = (node: Node) => {
    if (seen.has(node)) return;
    seen.add(node);
    node.atime = node.mtime = node.ctime = timeMs;
    if (!fs.isDir(node.mode)) return;
    if (node.contents) for (const child of Object.values(node.contents as Record<string, Node>)) visit(child);
    if (node.mounted) visit(node.mounted.root);
  };
  visit(fs.root);
}
