import { createHash } from "node:crypto";

/** 300 kB that are different in each round, so that a torn write cannot look whole. */
export function contentOfRound(round: number): Uint8Array {
  const seed = createHash("sha256").update(String(round)).digest();
  const content = Buffer.alloc(300_000);
  for (let at = 0; at < content.length; at += seed.length) seed.copy(content, at);
  content.write(`${round}\n`, 0);
  return content;
}

/** The round a content says it is from; compare with {@link contentOfRound}. */
export function roundOf(content: Uint8Array): number {
  return Number(Buffer.from(content).toString("latin1", 0, 12).split("\n")[0]);
}
