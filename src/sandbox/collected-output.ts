/** Pieces of less are copied together: each that is kept by itself costs some two hundred bytes more. */
const SMALL_BYTES = 4 * 1024;
const CHUNK_BYTES = 16 * 1024;

/** What a process prints, piece by piece: takes about as much memory as there are bytes, however small the pieces are. */
export class CollectedOutput {
  readonly #chunks: Uint8Array[] = [];
  /** Where small pieces go, and how much of it they fill. */
  #open: Uint8Array | null = null;
  #filled = 0;

  /** @param piece may be a view of a larger buffer; small ones do not keep that. */
  push(piece: Uint8Array): void {
    if (piece.length >= SMALL_BYTES) {
      this.#close();
      this.#chunks.push(piece);
      return;
    }
    if (this.#open === null || this.#filled + piece.length > CHUNK_BYTES) {
      this.#close();
      this.#open = new Uint8Array(CHUNK_BYTES);
    }
    this.#open.set(piece, this.#filled);
    this.#filled += piece.length;
  }

  /** All of it, in order. */
  toBuffer(): Buffer {
    this.#close();
    return Buffer.concat(this.#chunks);
  }

  #close(): void {
    if (this.#open !== null) this.#chunks.push(this.#open.subarray(0, this.#filled));
    this.#open = null;
    this.#filled = 0;
  }
}
