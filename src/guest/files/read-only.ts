import type { FileSystem, Node, NodeOperations } from "../interpreter/emscripten.ts";

/**
 * Makes everything that exists in the interpreter's file system read-only, for good: `chmod` fails too.
 *
 * A module poisoned on disk would outlive a rewind, which restores memory only.
 *
 * @param timeMs what every file and folder gives as its times. The real ones would tell sandboxes apart, and those of a device
 *   when it was last used, and by whom.
 */
export function freeze(fs: FileSystem, timeMs: number): void {
  const seen = new Set<Node>();
  const visit = (node: Node) => {
    if (seen.has(node)) return;
    seen.add(node);
    const isFolder = fs.isDir(node.mode);
    if (isFolder || fs.isFile(node.mode)) node.mode &= ~0o222;
    node.node_ops = readOnlyNodeOperations(node, new Date(timeMs));
    if (!isFolder) {
      if (fs.isFile(node.mode)) {
        const { write: _, msync: __, ...readOnly } = node.stream_ops;
        node.stream_ops = readOnly;
      }
      return;
    }
    if (node.contents) for (const child of Object.values(node.contents as Record<string, Node>)) visit(child);
    if (node.mounted) visit(node.mounted.root);
  };
  visit(fs.root);
}

function readOnlyNodeOperations(node: Node, time: Date): NodeOperations {
  const { getattr, lookup, readdir, readlink } = node.node_ops;
  const attributes = getattr && { ...getattr(node), atime: time, mtime: time, ctime: time };
  return {
    ...(attributes && { getattr: () => attributes }),
    ...(lookup && { lookup }),
    ...(readdir && { readdir }),
    ...(readlink && { readlink }),
  };
}
