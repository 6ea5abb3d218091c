import type { FileSystem, Node } from "../interpreter/emscripten.ts";

/**
 * Emscripten's table of names: chains of nodes by a hash of (parent's id, name), which is where a path is looked up first.
 *
 * Pipes, renamed files and files that are opened enter themselves at the heads of its chains, and a rename that fails takes a node of the
 * system's own out and puts it in again, in front of what user code has put there. So each chain is put back as a whole, heads
 * and links: a node that stayed behind one would be found by the next execution, since inode numbers repeat. Most executions change none, and to look at
 * all of them takes 20 µs, so the two functions through which Emscripten changes any are listened to.
 */
export class NameTable {
  readonly #fs: FileSystem;
  readonly #heads: readonly (Node | undefined)[];
  readonly #nodes: readonly Node[];
  readonly #next: readonly (Node | undefined)[];
  #isChanged = false;

  constructor(fs: FileSystem) {
    this.#fs = fs;
    const { hashAddNode, hashRemoveNode } = fs;
    const listening = (change: (node: Node) => void) => (node: Node) => {
      this.#isChanged = true;
      change.call(fs, node);
    };
    fs.hashAddNode = listening(hashAddNode);
    fs.hashRemoveNode = listening(hashRemoveNode);
    this.#heads = Array.from(fs.nameTable);
    const nodes: Node[] = [];
    for (const head of this.#heads) for (let node = head; node; node = node.name_next) nodes.push(node);
    this.#nodes = nodes;
    this.#next = nodes.map((node) => node.name_next);
  }

  /** Makes every chain what it was. */
  restore(): void {
    if (!this.#isChanged) return;
    this.#isChanged = false;
    const { nameTable } = this.#fs;
    nameTable.length = this.#heads.length;
    for (let hash = 0; hash < this.#heads.length; hash++) nameTable[hash] = this.#heads[hash];
    for (let index = 0; index < this.#nodes.length; index++) {
      (this.#nodes[index] as Node).name_next = this.#next[index];
    }
  }
}
