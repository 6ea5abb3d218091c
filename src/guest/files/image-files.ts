import type { OpenFile } from "../../wire/guest-messages.ts";
import type { FileSystem } from "../interpreter/emscripten.ts";
import { ENVIRONMENT_PATH, RUNNER_PATH } from "../interpreter/layout.ts";
import type { Program } from "../interpreter/load.ts";
import { pathOf } from "./open-files.ts";
import { ACCESS_MODE, openStreams } from "./streams.ts";

/** What every process has under the same path with the same content: an environment's archive, the standard library, our modules. */
const IN_EVERY_PROCESS = [`${ENVIRONMENT_PATH}/`, `${RUNNER_PATH}/`];
const STANDARD_LIBRARY = /^\/lib\/python\d+\.zip(\/|$)/;

export interface ImageFiles {
  readonly files: readonly OpenFile[];
  /** What is open and cannot be opened again in a sandbox: descriptor or mapping → why, which names it. */
  readonly unfit: ReadonlyMap<unknown, string>;
}

/**
 * What is open in an interpreter that is to become an image, besides the devices.
 *
 * An image is memory, and Python's file objects in it have descriptors of files that are open. A sandbox opens those again before
 * its baseline.
 *
 * @param devices descriptors that every sandbox has open.
 */
export function findImageFiles({ module: { FS: fs }, mappings }: Program, devices: ReadonlySet<number>): ImageFiles {
  const groups = new Map<object, number>();
  const files: OpenFile[] = [];
  const unfit = new Map<unknown, string>();
  for (const [fd, stream] of openStreams(fs)) {
    if (devices.has(fd)) continue;
    const path = pathOf(fs, stream.node, stream.path);
    const why = path === null ? "has no path" : whyUnfit(fs, path, stream.node.mode, stream.flags);
    if (path === null || why !== null) {
      unfit.set(fd, `${path ?? stream.path}, which ${why}`);
      continue;
    }
    const group = groups.get(stream.shared) ?? groups.size;
    groups.set(stream.shared, group);
    files.push({ fd, path, flags: stream.flags, position: stream.position, group });
  }
  for (const { address, node } of mappings.list()) {
    unfit.set(`mapped at ${address}`, `${fs.getPath(node)}, which is mapped and can be written to`);
  }
  return { files, unfit };
}

function whyUnfit(fs: FileSystem, path: string, mode: number, flags: number): string | null {
  if (fs.isChrdev(mode)) return null;
  if (!fs.isFile(mode)) return "is not a file";
  if (!IN_EVERY_PROCESS.some((root) => path.startsWith(root)) && !STANDARD_LIBRARY.test(path)) {
    return "is not there in a sandbox";
  }
  return (flags & ACCESS_MODE) === 0 ? null : "is open for writing";
}
