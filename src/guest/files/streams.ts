import { ERRNO, type FileSystem, type Module, type Stream } from "../interpreter/emscripten.ts";

/** Of a stream's `flags`: whether it reads (0), writes (1), or both. */
export const ACCESS_MODE = 3;
/** As on Linux. */
const MAX_PIPE_BYTES = 64 * 1024;

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

/**
 * Bounds what Emscripten keeps without a limit, in JavaScript's memory, which no limit on WebAssembly covers: what lies in a
 * pipe (one that is full refuses to take more, as a non-blocking one does), and descriptors that `fcntl` duplicates.
 *
 * @returns the descriptors that were opened or closed since it was last cleared.
 */
export function boundStreams({ FS: fs, PIPEFS: pipes }: Module): Set<number> {
  const touched = new Set<number>();
  const { createStream, closeStream } = fs;
  fs.createStream = (stream, fd) => {
    if (fd !== undefined && fd >= fs.MAX_OPEN_FDS) throw new fs.ErrnoError(ERRNO.EMFILE);
    const created = createStream.call(fs, stream, fd);
    touched.add(created.fd as number);
    return created;
  };
  fs.closeStream = (fd) => {
    touched.add(fd);
    closeStream.call(fs, fd);
  };
  const { write } = pipes.stream_ops;
  pipes.stream_ops.write = (stream, buffer, offset, length, position) => {
    const { pipe } = stream.node as unknown as { pipe: { buckets: { offset: number; roffset: number }[] } };
    const room = MAX_PIPE_BYTES - pipe.buckets.reduce((sum, bucket) => sum + bucket.offset - bucket.roffset, 0);
    if (room <= 0 && length > 0) throw new fs.ErrnoError(ERRNO.EAGAIN);
    return write(stream, buffer, offset, Math.min(room, length), position);
  };
  return touched;
}
