/** What a request's body may hold: as deep as results are, and more values than any request has. */
export const BODY_LIMITS = { maxDepth: 200, maxNodes: 50_000 };
/** Larger bodies are parsed in a thread of their own: the event loop of this one goes on. */
export const MAX_INLINE_BYTES = 128 * 1024;
