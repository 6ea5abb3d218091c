import type { FileSystem, Stream } from "../interpreter/emscripten.ts";

/** Of a stream's `flags`: whether it reads (0), writes (1), or both. */
export const ACCESS_MODE = 3;

/** What is open, by descriptors in order. */
export function openStreams({ streams }: FileSystem): [fd: number, stream: Stream][] {
  const open: [number, Stream][] = [];
  // By its keys: two descriptors stand thousands of empty places apart.
  for (const key of Object.keys(streams)) {
    const stream = streams[Number(key)];
    if (stream) open.push([Number(key), stream]);
  }
  return open;
}
