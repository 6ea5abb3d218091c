/**
 * A memory image: an interpreter's linear memory without its zero pages, and what must fit for it to be used.
 *
 *     8 bytes  "PYEXIMAG"
 *     u32 le   format version
 *     u32 le   length of the header, bytes
 *     header   JSON in UTF-8: an `ImageHeader`, and spaces up to a multiple of 4096 bytes from the beginning
 *     data     the runs' bytes, one after another, so that each page of the memory is one of the file's
 *
 * Imports nothing but types, since both the host and the guest use it.
 */
import type { OpenFile } from "./guest-messages.ts";

const MAGIC = "PYEXIMAG";
export const IMAGE_VERSION = 4;
export const IMAGE_PREFIX_BYTES = 16;
/** A page of memory, and of the image's file: what most systems' pages have. */
export const PAGE_BYTES = 4096;
const SPACE = 0x20;

/** Memory from `start` to `end`, bytes, multiples of {@link PAGE_BYTES}. */
export type Run = readonly [start: number, end: number];

export interface ImageHeader {
  readonly heapBytes: number;
  /** Length of the function table: a call through a slot that is not there would trap, or worse, hit another function. */
  readonly tableLength: number;
  readonly freeTableSlots: readonly number[];
  /** References from Python into JavaScript, and where they stand in their table. */
  readonly references: number;
  readonly referenceSlots: readonly number[];
  readonly stackPointer: number;
  /** Files that are open in it, all of them read-only and there in every process. */
  readonly openFiles: readonly OpenFile[];
  /** `3.14.2` */
  readonly pythonVersion: string;
  /** What is not zero. */
  readonly runs: readonly Run[];
}

/** The bytes are no image, a damaged one, or one for another interpreter. */
export class ImageFormatError extends Error {
  override readonly name = "ImageFormatError";
}

/** Runs of non-zero blocks. @param memory length a multiple of 4096. */
export function findRuns(memory: Uint8Array): Run[] {
  const words = new Uint32Array(memory.buffer, memory.byteOffset, memory.length / 4);
  const isZero = (block: number) => {
    const end = (block + PAGE_BYTES) / 4;
    for (let word = block / 4; word < end; word++) if (words[word] !== 0) return false;
    return true;
  };
  const runs: [number, number][] = [];
  for (let block = 0; block < memory.length; block += PAGE_BYTES) {
    if (isZero(block)) continue;
    const last = runs.at(-1);
    if (last && last[1] === block) last[1] = block + PAGE_BYTES;
    else runs.push([block, block + PAGE_BYTES]);
  }
  return runs;
}

export function encodeImage(memory: Uint8Array, facts: Omit<ImageHeader, "runs" | "heapBytes">): Uint8Array {
  const runs = findRuns(memory);
  const text = new TextEncoder().encode(JSON.stringify({ heapBytes: memory.length, ...facts, runs }));
  const headBytes = Math.ceil((IMAGE_PREFIX_BYTES + text.length) / PAGE_BYTES) * PAGE_BYTES;
  const header = new Uint8Array(headBytes - IMAGE_PREFIX_BYTES).fill(SPACE);
  header.set(text);
  const dataBytes = runs.reduce((sum, [start, end]) => sum + end - start, 0);
  const image = new Uint8Array(headBytes + dataBytes);
  new TextEncoder().encodeInto(MAGIC, image);
  const view = new DataView(image.buffer);
  view.setUint32(8, IMAGE_VERSION, true);
  view.setUint32(12, header.length, true);
  image.set(header, IMAGE_PREFIX_BYTES);
  let position = headBytes;
  for (const [start, end] of runs) {
    image.set(memory.subarray(start, end), position);
    position += end - start;
  }
  return image;
}

/** @throws {ImageFormatError} naming the first thing that is wrong. */
export function decodeImage(image: Uint8Array): { header: ImageHeader; data: Uint8Array } {
  const headBytes = imageHeadBytes(image, image.length);
  const header = decodeImageHead(image.subarray(0, headBytes), image.length);
  return { header, data: image.subarray(headBytes) };
}

/** How many bytes there are before the data, by an image's first {@link IMAGE_PREFIX_BYTES}. @throws {ImageFormatError} */
export function imageHeadBytes(prefix: Uint8Array, imageBytes: number): number {
  if (prefix.length < IMAGE_PREFIX_BYTES || String.fromCharCode(...prefix.subarray(0, 8)) !== MAGIC) {
    throw new ImageFormatError("not a memory image");
  }
  const view = new DataView(prefix.buffer, prefix.byteOffset, IMAGE_PREFIX_BYTES);
  const version = view.getUint32(8, true);
  if (version !== IMAGE_VERSION) throw new ImageFormatError(`image version ${version}, not ${IMAGE_VERSION}`);
  const headBytes = IMAGE_PREFIX_BYTES + view.getUint32(12, true);
  if (headBytes % PAGE_BYTES !== 0) throw new ImageFormatError("the data does not begin with a page");
  if (headBytes > imageBytes) throw new ImageFormatError("the image is cut off");
  return headBytes;
}

/** @param head all that stands before the data. @throws {ImageFormatError} */
export function decodeImageHead(head: Uint8Array, imageBytes: number): ImageHeader {
  let header: ImageHeader;
  try {
    const text = new TextDecoder("utf-8", { fatal: true });
    header = JSON.parse(text.decode(head.subarray(IMAGE_PREFIX_BYTES)));
  } catch (cause) {
    throw new ImageFormatError("the header is not JSON in UTF-8", { cause });
  }
  check(header, imageBytes - head.length);
  return header;
}

function check(header: ImageHeader, dataBytes: number): void {
  const isSize = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
  const { heapBytes, tableLength, references, stackPointer, freeTableSlots, referenceSlots, runs, openFiles } =
    header ?? {};
  const areSlots = (value: unknown) => Array.isArray(value) && value.every(isSize);
  if (
    ![heapBytes, tableLength, references, stackPointer].every(isSize) ||
    ![freeTableSlots, referenceSlots].every(areSlots) ||
    !(Array.isArray(openFiles) && openFiles.every(isOpenFile)) ||
    !/^\d+\.\d+\.\d+/.test(header.pythonVersion)
  ) {
    throw new ImageFormatError("the header lacks a field");
  }
  if (!Array.isArray(runs)) throw new ImageFormatError("the header lacks the runs");
  let previousEnd = 0;
  let total = 0;
  for (const run of runs as readonly unknown[]) {
    const [start, end] = Array.isArray(run) ? (run as number[]) : [];
    if (!isSize(start) || !isSize(end)) throw new ImageFormatError("a run is not a pair of sizes");
    const ordered =
      (start as number) >= previousEnd && (end as number) > (start as number) && (end as number) <= heapBytes;
    if (!ordered || (start as number) % PAGE_BYTES !== 0 || (end as number) % PAGE_BYTES !== 0) {
      throw new ImageFormatError("the runs are out of order, or outside the heap");
    }
    previousEnd = end as number;
    total += (end as number) - (start as number);
  }
  if (total !== dataBytes) throw new ImageFormatError("the data does not fit the runs");
}

function isOpenFile(file: unknown): boolean {
  const { fd, path, flags, position, group } = (file ?? {}) as Record<string, unknown>;
  return typeof path === "string" && [fd, flags, position, group].every((value) => Number.isSafeInteger(value));
}
