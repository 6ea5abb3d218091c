import type { Attributes, Node } from "../interpreter/emscripten.ts";

const BLOCK_BYTES = 4096;

/** What `stat` tells of a node of ours: one owner, one link, no device. */
export function attributesOf(
  { id, mode }: Node,
  size: number,
  times: Pick<Attributes, "atime" | "mtime" | "ctime">,
): Attributes {
  return {
    dev: 1,
    ino: id,
    mode,
    nlink: 1,
    uid: 0,
    gid: 0,
    rdev: 0,
    size,
    ...times,
    blksize: BLOCK_BYTES,
    blocks: Math.ceil(size / BLOCK_BYTES),
  };
}
