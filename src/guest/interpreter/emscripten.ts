/** The parts of Emscripten's and Pyodide's private interfaces that the guest leans on. `pyodide` is pinned for this reason. */

export interface Node {
  id: number;
  name: string;
  mode: number;
  rdev: number;
  parent: Node;
  mount: Mount;
  mounted: Mount | null;
  /** The next in its chain of {@link FileSystem.nameTable}. */
  name_next?: Node | undefined;
  atime: number;
  mtime: number;
  ctime: number;
  contents?: unknown;
  usedBytes?: number;
  link?: string;
  node_ops: NodeOperations;
  stream_ops: StreamOperations;
}

export interface Mount {
  type: unknown;
  opts: unknown;
  mountpoint: string;
  mounts: Mount[];
  root: Node;
}

export interface Stream {
  fd: number | null;
  node: Node;
  path: string;
  flags: number;
  position: number;
  seekable: boolean;
  stream_ops: StreamOperations;
  shared: { flags: number; position: number };
  /** Names of a folder that is being listed. */
  getdents?: string[] | null;
}

/** What both ends of a pipe share. */
export interface Pipe {
  /** Null: both ends are closed. Unread bytes stand from `roffset` to `offset`. */
  buckets: { buffer: Uint8Array; offset: number; roffset: number }[] | null;
  refcnt: number;
}

export interface Attributes {
  dev: number;
  ino: number;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  rdev: number;
  size: number;
  atime: Date;
  mtime: Date;
  ctime: Date;
  blksize: number;
  blocks: number;
}

export interface NodeOperations {
  getattr?(node: Node): Attributes;
  setattr?(
    node: Node,
    attributes: { mode?: number; size?: number; atime?: number; mtime?: number; ctime?: number },
  ): void;
  lookup?(parent: Node, name: string): Node;
  mknod?(parent: Node, name: string, mode: number, dev: number): Node;
  rename?(node: Node, newParent: Node, newName: string): void;
  unlink?(parent: Node, name: string): void;
  rmdir?(parent: Node, name: string): void;
  readdir?(node: Node): string[];
  symlink?(parent: Node, name: string, target: string): Node;
  readlink?(node: Node): string;
}

export interface StreamOperations {
  open?(stream: Stream): void;
  close?(stream: Stream): void;
  read?(stream: Stream, buffer: Uint8Array, offset: number, length: number, position: number): number;
  write?(stream: Stream, buffer: Uint8Array, offset: number, length: number, position: number): number;
  llseek?(stream: Stream, offset: number, whence: number): number;
  mmap?(
    stream: Stream,
    length: number,
    position: number,
    prot: number,
    flags: number,
  ): { ptr: number; allocated: boolean };
  msync?(stream: Stream, buffer: Uint8Array, offset: number, length: number, flags: number): number;
  [operation: string]: unknown;
}

export interface FileSystem {
  root: Node;
  streams: (Stream | null | undefined)[];
  readonly MAX_OPEN_FDS: number;
  devices: Record<number, { stream_ops: StreamOperations }>;
  nextInode: number;
  /** Heads of the chains of a hash table over (parent's id, name). */
  nameTable: (Node | undefined)[];
  currentPath: string;
  ignorePermissions: boolean;
  ErrnoError: new (errno: number) => Error;
  FSNode: new (parent: Node | null, name: string, mode: number, rdev: number) => Node;
  lookupPath(path: string, options?: { follow?: boolean; follow_mount?: boolean }): { node: Node };
  getPath(node: Node): string;
  hashAddNode(node: Node): void;
  hashRemoveNode(node: Node): void;
  isDir(mode: number): boolean;
  isFile(mode: number): boolean;
  isLink(mode: number): boolean;
  isChrdev(mode: number): boolean;
  mkdirTree(path: string): void;
  symlink(target: string, path: string): void;
  chdir(path: string): void;
  readFile(path: string, options?: object): unknown;
  writeFile(path: string, data: Uint8Array | string): void;
  mkdev(path: string, mode: number, dev: number): Node;
  makedev(major: number, minor: number): number;
  registerDevice(dev: number, operations: StreamOperations): void;
  createStream(stream: object, fd?: number): Stream;
  closeStream(fd: number): void;
  open(path: string, flags: number): Stream;
  filesystems: { MEMFS: { stream_ops: Required<Pick<StreamOperations, "mmap" | "llseek">> } };
}

/** The module object that Emscripten fills in. */
export interface Module {
  FS: FileSystem;
  ENV: Record<string, string>;
  API: { readonly version: string };
  /** Address of the byte that tells Python to look at `Py_EmscriptenSignalBuffer`. */
  _Py_EMSCRIPTEN_SIGNAL_HANDLING: number;
  Py_EmscriptenSignalBuffer: Uint8Array;
  LDSO: { loadedLibsByName: Record<string, unknown>; loadedLibsByHandle: Record<string, unknown> };
  DNS: { address_map: { id: number; addrs: Record<string, string>; names: Record<string, string> } };
  PIPEFS: {
    nextname: { current?: number };
    stream_ops: StreamOperations & Required<Pick<StreamOperations, "write">>;
    createPipe(): { readable_fd: number; writable_fd: number };
  };
  SOCKFS: { nextname: { current?: number } };
  timers: Record<string, unknown>;
  freeTableIndexes: number[];
  wasmTable: WebAssembly.Table;
  /** The addresses of symbols, or where in the table they are. */
  GOT: Record<string, WebAssembly.Global<"i32">>;
  __hiwire_get(index: number): unknown;
  __hiwire_set(index: number, value: unknown): number;
  instantiateWasm?(
    imports: WebAssembly.Imports,
    done: (instance: WebAssembly.Instance, module: WebAssembly.Module) => void,
  ): object;
  [name: string]: unknown;
}

/** What the guest calls in the interpreter's C API. Pointers and sizes are numbers. */
export interface Exports {
  readonly memory: WebAssembly.Memory;
  readonly __stack_pointer: WebAssembly.Global<"i32">;
  PyImport_ImportModule(name: number): number;
  PyObject_GetAttrString(object: number, name: number): number;
  PyObject_CallOneArg(callable: number, argument: number): number;
  PyObject_CallNoArgs(callable: number): number;
  /** As the garbage collector does: once for each object. */
  PyObject_CallFinalizer(object: number): void;
  /** @param data UTF-8 */
  PyUnicode_FromStringAndSize(data: number, size: number): number;
  PyBytes_FromStringAndSize(data: number, size: number): number;
  PyBytes_AsString(object: number): number;
  PyBytes_Size(object: number): number;
  PyErr_Clear(): void;
  PyErr_Print(): void;
  Py_DecRef(object: number): void;
  PyThreadState_Get(): number;
  PyUnstable_ThreadState_SetStackProtection(thread: number, start: number, bytes: number): number;
  malloc(size: number): number;
  free(pointer: number): void;
  malloc_usable_size(pointer: number): number;
  /** Writes a `struct mallinfo` to `result`. */
  mallinfo(result: number): void;
  sbrk(increment: number): number;
  /** The C stack grows from its base down to its end. */
  emscripten_stack_get_base(): number;
  emscripten_stack_get_end(): number;
  hiwire_num_refs(): number;
  dlopen(path: number, flags: number): number;
  dlsym(handle: number, name: number): number;
  dlerror(): number;
  setenv(name: number, value: number, overwrite: number): number;
  __dl_seterr(message: number, unused: number): void;
}

/** Numbers of the errors a file operation answers, as Emscripten's C library counts them. */
export const ERRNO = {
  EACCES: 2,
  EAGAIN: 6,
  EEXIST: 20,
  EINVAL: 28,
  EIO: 29,
  EISDIR: 31,
  EMFILE: 33,
  ENAMETOOLONG: 37,
  ENOENT: 44,
  ENOSPC: 51,
  ENOTEMPTY: 55,
  EPERM: 63,
  ESTALE: 72,
} as const;
