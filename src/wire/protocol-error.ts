/** The other side broke the protocol; nothing that follows on this connection can be believed. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
}

/** Makes a message of a frame's header, or throws. */
export type ReadHeader<M> = (header: Uint8Array) => M;
