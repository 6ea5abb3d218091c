import {
  decodeImageHead,
  IMAGE_PREFIX_BYTES,
  ImageFormatError,
  type ImageHeader,
  imageHeadBytes,
} from "../../wire/image-format.ts";
import { ReadableFile } from "../files/readable-file.ts";
import type { DirtyPages } from "./dirty-pages.ts";
import type { MappableFile, MemoryMapping } from "./mapping.ts";
import { pagesFor } from "./wasm-pages.ts";

/**
 * A memory image in its file. Where memory can be mapped, its pages are the file's; else they are read to where they are to be, with no
 * copy in between.
 */
export class ImageFile {
  readonly header: ImageHeader;
  /** How much data there is. */
  readonly dataBytes: number;
  readonly #file: ReadableFile;
  readonly #headBytes: number;
  /** How it is mapped, or why it is read. */
  readonly #mapped: { readonly mapping: MemoryMapping; readonly file: MappableFile } | string;
  #memory: WebAssembly.Memory | null = null;

  /**
   * @param mapping a string: why there is none.
   * @throws {ImageFormatError} if it is none.
   */
  constructor(path: string, mapping: MemoryMapping | string) {
    this.#file = new ReadableFile(path);
    const { bytes } = this.#file;
    this.#headBytes = imageHeadBytes(this.#file.read(0, IMAGE_PREFIX_BYTES), bytes);
    this.header = decodeImageHead(this.#file.read(0, this.#headBytes), bytes);
    this.dataBytes = bytes - this.#headBytes;
    this.#mapped = typeof mapping === "string" ? mapping : openMapped(path, mapping);
    // Reading past the end of a file that is shorter would not be an error, but the end of the process.
    if (typeof this.#mapped !== "string" && this.#mapped.file.bytes !== bytes) {
      throw new ImageFormatError("the image was replaced meanwhile");
    }
  }

  /** The data, in a memory of its own that begins with it. Read once. */
  toMemory(): WebAssembly.Memory {
    if (this.#memory === null) {
      this.#memory = new WebAssembly.Memory({ initial: pagesFor(this.dataBytes) });
      if (typeof this.#mapped === "string") this.readData(new Uint8Array(this.#memory.buffer, 0, this.dataBytes), 0);
      else {
        const { mapping, file } = this.#mapped;
        mapping.mapInto(this.#memory, file, [{ start: 0, position: this.#headBytes, bytes: this.dataBytes }]);
      }
    }
    return this.#memory;
  }

  /** Fills `target` with the data from `position` on. @throws {ImageFormatError} if there is less. */
  readData(target: Uint8Array, position: number): void {
    const count = this.#file.readInto(target, this.#headBytes + position);
    if (count !== target.length) throw new ImageFormatError("the image is cut off");
  }

  /**
   * Prepares to have a memory, at least as large, be what the image says and zero beyond.
   *
   * @returns does it, or why nothing can be mapped here.
   */
  prepareInto(memory: WebAssembly.Memory): (() => void) | string {
    if (typeof this.#mapped === "string") return this.#mapped;
    const { mapping, file } = this.#mapped;
    let position = this.#headBytes;
    const parts = this.header.runs.map(([start, end]) => {
      const part = { start, position, bytes: end - start };
      position += part.bytes;
      return part;
    });
    return mapping.prepare(memory, file, parts);
  }

  /**
   * Prepares to tell which pages of a memory are written to, from when it is what the image says.
   *
   * @returns begins it, and throws if that cannot be told. @throws {Error} as well; the message says why.
   */
  prepareWatch(memory: WebAssembly.Memory): () => DirtyPages {
    const [first] = this.header.runs;
    if (typeof this.#mapped === "string" || !first) throw new Error("the image is not mapped");
    return this.#mapped.mapping.prepareWatch(memory, first[0]);
  }

  /** The whole file, as it was written. */
  readAll(): Uint8Array {
    return this.#file.read(0, this.#file.bytes);
  }

  close(): void {
    this.#file.close();
    if (typeof this.#mapped !== "string") this.#mapped.file.close();
  }
}

/** @returns why the file cannot be mapped, if it cannot. */
function openMapped(path: string, mapping: MemoryMapping): { mapping: MemoryMapping; file: MappableFile } | string {
  try {
    return { mapping, file: mapping.openFile(path) };
  } catch (error) {
    return (error as Error).message;
  }
}
