import { ERRNO, type FileSystem, type Node, type Stream } from "../interpreter/emscripten.ts";

const MODE = 0o100644;
const SEEK_END = 2;

/** What a descriptor or a mapping refers to whose file others have changed or deleted. */
interface StaleFile extends Node {
  /** Where the file is, or was. */
  readonly stalePath: string;
}

/**
 * A file that is not the one any more that was opened: as with a file server's, every use of it is an error (ESTALE).
 *
 * It has no content, so that nothing is read for it, and a mapping of it has nothing to agree with.
 */
export function staleFile(fs: FileSystem, path: string): Node {
  const stale = () => {
    throw new fs.ErrnoError(ERRNO.ESTALE);
  };
  const { llseek } = fs.filesystems.MEMFS.stream_ops;
  const node = new fs.FSNode(fs.lookupPath("/").node, path.slice(path.lastIndexOf("/") + 1), MODE, 0);
  return Object.assign(node, {
    stalePath: path,
    children: null,
    contents: new Uint8Array(0),
    usedBytes: 0,
    unread: null,
    origin: null,
    orphan: false,
    node_ops: { getattr: stale, setattr: stale },
    stream_ops: {
      read: stale,
      write: stale,
      mmap: stale,
      fsync: stale,
      llseek: (stream: Stream, offset: number, whence: number) =>
        whence === SEEK_END ? stale() : llseek(stream, offset, whence),
    },
  });
}

export function isStale(node: Node): node is StaleFile {
  return (node as Partial<StaleFile>).stalePath !== undefined;
}
