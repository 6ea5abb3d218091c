import { expect } from "vitest";

/** What `cpuTime` is in a reply: ms, or null where the system does not tell. */
export const cpuTime = expect.toSatisfy((value) => value === null || Number.isInteger(value));
