import type { WebSocket } from "ws";
import { SerialQueue } from "../../shared/serial-queue.ts";

export interface MessageReaderOptions {
  /** How often a client is asked for a sign of life, ms. */
  readonly heartbeatMs: number;
  /** Does what a message says. The next one waits for it. Never rejects. */
  readonly take: (bytes: Buffer, isBinary: boolean) => Promise<void>;
  /** @param code of the close frame; 1005: there was none. */
  readonly onClose: (code: number) => void;
}

/** Reads the messages of a WebSocket, one after another, and ends one whose client gives no sign of life. */
export function readMessages(socket: WebSocket, { heartbeatMs, take, onClose }: MessageReaderOptions): void {
  const turns = new SerialQueue();
  let isAlive = true;
  /** Messages that are being done. Meanwhile nothing is read, no answer to a heartbeat either. */
  let underWay = 0;
  // An event of the socket's own, such as a message that is too large: `close` comes after it.
  socket.on("error", () => {});
  socket.on("pong", () => {
    isAlive = true;
  });
  const heartbeat = setInterval(() => {
    if (underWay > 0) return;
    if (!isAlive) {
      socket.terminate();
      return;
    }
    isAlive = false;
    socket.ping();
  }, heartbeatMs).unref();
  socket.on("close", (code) => {
    clearInterval(heartbeat);
    onClose(code);
  });
  socket.on("message", (data, isBinary) => {
    // What comes next waits in the client: only so many bytes are here at a time.
    socket.pause();
    underWay++;
    void turns
      .run(() => {
        isAlive = true;
        return take(data as Buffer, isBinary);
      })
      .finally(() => {
        if (--underWay === 0) socket.resume();
      });
  });
}
