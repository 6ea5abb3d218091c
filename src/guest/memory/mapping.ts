/**
 * Memory that is a file's until it is written to, and what the kernel knows of that.
 *
 * An image's file is mapped into a WebAssembly memory, privately. A page is then the file's, one for all sandboxes of the machine, until
 * something writes to it: from there on the process has its own copy, and the kernel tells which pages are such copies. A rewind
 * looks at those, and not at the whole of the memory.
 *
 * Mapping and asking are calls of the C library, for which Deno wants the permission `ffi`. It is given up with the others before any
 * code of a package runs. What is bound until then stays bound: of it, placing one image at addresses that were fixed before, reading the page
 * map and discarding pages are kept, where nothing else reaches them.
 */
import { PAGE_BYTES } from "../../wire/image-format.ts";
import { DirtyPages, type Kernel } from "./dirty-pages.ts";

const O_CLOEXEC = 0x8_0000;
const SEEK_END = 2;
const PROT_READ_WRITE = 3;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const MADV_DONTNEED = 4;
const MADV_NOHUGEPAGE = 15;

const RUSAGE_THREAD = 1;
/** Of `struct rusage` on 64-bit Linux: two times, and fourteen numbers of which the fifth and sixth are faults; words of 32 bits. */
const RUSAGE_WORDS = 36;
const MINOR_FAULTS = 16;
const MAJOR_FAULTS = 18;

/** Bytes of an entry of the page map, and its words. */
const ENTRY_BYTES = 8;
const ENTRY_WORDS = 2;
/** All that a WebAssembly memory can ever be. V8 reserves that much for each. */
const MAX_MEMORY_BYTES = 2 ** 32;

const FUNCTIONS = {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "i32" },
  mmap: { parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "usize" },
  madvise: { parameters: ["usize", "usize", "i32"], result: "i32" },
  getrusage: { parameters: ["i32", "buffer"], result: "i32" },
  getpagesize: { parameters: [], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

type System = Deno.DynamicLibrary<typeof FUNCTIONS>["symbols"];

// Deno's own object is gone from the realm when some of it is needed here. The others are held on to since what is called with their help
// reads and writes any address: code that has come out of Python must not get to say which, by putting something in their place.
const { dlopen, UnsafePointer } = Deno;
const { BigInt: toBigInt, Uint32Array: Words } = globalThis;

/** A file whose content can be a memory's. */
export interface MappableFile {
  readonly bytes: number;
  readonly descriptor: number;
  /** What was mapped stays. */
  close(): void;
}

/** What of a file is to be where in a memory: bytes, multiples of {@link PAGE_BYTES}. */
export interface MappedPart {
  readonly start: number;
  readonly position: number;
  readonly bytes: number;
}

/** One call of `mmap`, ready to be made. */
type Call = readonly [address: bigint, bytes: bigint, flags: number, descriptor: number, position: bigint];

export class MemoryMapping {
  readonly #system: System;

  /** @throws {Error} if files cannot be mapped here; its message says why. */
  constructor() {
    this.#system = dlopen("libc.so.6", FUNCTIONS).symbols;
    const pageBytes = this.#system.getpagesize();
    if (pageBytes !== PAGE_BYTES) throw new Error(`the system's pages have ${pageBytes} bytes`);
  }

  /** @throws {Error} if the file's system does not map files; its message says so. */
  openFile(path: string): MappableFile {
    const system = this.#system;
    const descriptor = this.#open(path);
    // In a memory of its own: a failure loses nothing that is needed.
    const { mmap } = system;
    perform(
      mmap,
      callsFor(new WebAssembly.Memory({ initial: 1 }), descriptor, [{ start: 0, position: 0, bytes: PAGE_BYTES }]),
    );
    return {
      bytes: Number(system.lseek(descriptor, 0n, SEEK_END)),
      descriptor,
      close: () => void system.close(descriptor),
    };
  }

  /** Has parts of a memory be a file's. What was mapped stays when the file is closed. */
  mapInto(memory: WebAssembly.Memory, { descriptor }: MappableFile, parts: readonly MappedPart[]): void {
    perform(this.#system.mmap, callsFor(memory, descriptor, parts));
  }

  /**
   * Prepares to make a memory zero, without looking at it, but for parts that are a file's.
   *
   * @returns does it, any time later: at the addresses, over the lengths and from the places of the file that are fixed now. It must not be
   *   larger by then: what is beyond would stay.
   */
  prepare(memory: WebAssembly.Memory, { descriptor }: MappableFile, parts: readonly MappedPart[]): () => void {
    const { mmap, madvise } = this.#system;
    const address = toBigInt(addressOf(memory));
    const bytes = toBigInt(memory.buffer.byteLength);
    const clearing: Call = [address, bytes, MAP_ANONYMOUS | MAP_NORESERVE, -1, 0n];
    const calls = [clearing, ...callsFor(memory, descriptor, parts)];
    return () => {
      perform(mmap, calls);
      // Where the system makes huge pages by itself, one byte written would be 2 MiB to look at. Where it knows none, this fails.
      madvise(address, bytes, MADV_NOHUGEPAGE);
    };
  }

  /**
   * Prepares to tell which pages of a memory are written to.
   *
   * @param at a page in it that is to be a file's, as an offset in bytes.
   * @returns begins it, once the memory was cleared and nothing mapped into it since but files. It throws if the system does not tell; the
   *   error's message says why.
   */
  prepareWatch(memory: WebAssembly.Memory, at: number): () => DirtyPages {
    const kernel = this.#kernelOf(memory);
    return () => {
      const pages = new DirtyPages(memory, kernel);
      pages.check(at);
      return pages;
    };
  }

  /** Of what it is given only numbers within bounds are used, and nothing of the realm's. */
  #kernelOf(memory: WebAssembly.Memory): Kernel {
    const { pread, madvise, getrusage } = this.#system;
    const pagemap = this.#open("/proc/self/pagemap");
    const address = addressOf(memory);
    const firstEntry = toBigInt((address / PAGE_BYTES) * ENTRY_BYTES);
    const usage = new Words(RUSAGE_WORDS);
    let entries = new Words(0);
    let known = 0;
    return {
      readPagemap(pages) {
        if (pages >>> 0 !== pages || pages > MAX_MEMORY_BYTES / PAGE_BYTES) return null;
        if (pages !== known) {
          entries = new Words(pages * ENTRY_WORDS);
          known = pages;
        }
        const bytes = known * ENTRY_BYTES;
        return pread(pagemap, entries, toBigInt(bytes), firstEntry) === bytes ? entries : null;
      },
      faults() {
        if (getrusage(RUSAGE_THREAD, usage) !== 0) return null;
        const word = (index: number) => usage[index] as number;
        return word(MINOR_FAULTS) + word(MAJOR_FAULTS) + (word(MINOR_FAULTS + 1) + word(MAJOR_FAULTS + 1)) * 2 ** 32;
      },
      discard(start, length) {
        if (start >>> 0 !== start || length >>> 0 !== length || start + length > MAX_MEMORY_BYTES) return false;
        return madvise(toBigInt(address + start), toBigInt(length), MADV_DONTNEED) === 0;
      },
    };
  }

  #open(path: string): number {
    const descriptor = this.#system.open(new TextEncoder().encode(`${path}\0`), O_CLOEXEC);
    if (descriptor < 0) throw new Error(`${path} cannot be opened`);
    return descriptor;
  }
}

function callsFor(memory: WebAssembly.Memory, descriptor: number, parts: readonly MappedPart[]): Call[] {
  const address = addressOf(memory);
  return parts.map(({ start, position, bytes }) => {
    if (start < 0 || bytes < 0 || start + bytes > memory.buffer.byteLength)
      throw new Error("it is larger than the memory");
    return [toBigInt(address + start), toBigInt(bytes), 0, descriptor, toBigInt(position)];
  });
}

/** Uses nothing of the realm's, and of its arguments only what was fixed when they were made. */
function perform(mmap: System["mmap"], calls: readonly Call[]): void {
  for (let index = 0; index < calls.length; index++) {
    const call = calls[index] as Call;
    const mapped = mmap(call[0], call[1], PROT_READ_WRITE, MAP_PRIVATE | MAP_FIXED | call[2], call[3], call[4]);
    // After a failure the content is unknown.
    if (mapped !== call[0]) throw new Error("memory could not be mapped");
  }
}

/** Stays what it is: V8 reserves all addresses that a memory may ever need. */
function addressOf(memory: WebAssembly.Memory): number {
  return Number(UnsafePointer.value(UnsafePointer.of(new Uint8Array(memory.buffer))));
}
