import {
  decodeImageHead,
  IMAGE_PREFIX_BYTES,
  ImageFormatError,
  type ImageHeader,
  imageHeadBytes,
} from "../sandbox/image-format.ts";
import { ReadableFile } from "./readable-file.ts";

export const WASM_PAGE_BYTES = 65_536;

/** How many pages a memory of so many bytes has: at least one. */
export const pagesFor = (bytes: number) => Math.max(1, Math.ceil(bytes / WASM_PAGE_BYTES));

/** A memory image in its file. Its data is read to where it is to be, with no copy in between. */
export class ImageFile {
  readonly header: ImageHeader;
  /** How much data there is. */
  readonly dataBytes: number;
  readonly #file: ReadableFile;
  readonly #headBytes: number;
  #memory: WebAssembly.Memory | null = null;

  /** @throws {ImageFormatError} if it is none. */
  constructor(path: string) {
    this.#file = new ReadableFile(path);
    const { bytes } = this.#file;
    this.#headBytes = imageHeadBytes(this.#file.read(0, IMAGE_PREFIX_BYTES), bytes);
    this.header = decodeImageHead(this.#file.read(0, this.#headBytes), bytes);
    this.dataBytes = bytes - this.#headBytes;
  }

  /** Fills `target` with the data from `position` on. @throws {ImageFormatError} if there is less. */
  readData(target: Uint8Array, position: number): void {
    const count = this.#file.readInto(target, this.#headBytes + position);
    if (count !== target.length) throw new ImageFormatError("the image is cut off");
  }

  /** The data, in a memory of its own that begins with it. Read once. */
  toMemory(): WebAssembly.Memory {
    if (this.#memory === null) {
      this.#memory = new WebAssembly.Memory({ initial: pagesFor(this.dataBytes) });
      this.readData(new Uint8Array(this.#memory.buffer, 0, this.dataBytes), 0);
    }
    return this.#memory;
  }

  /** The whole file, as it was written. */
  readAll(): Uint8Array {
    return this.#file.read(0, this.#file.bytes);
  }

  close(): void {
    this.#file.close();
  }
}
