import type { Technique } from "./attack.ts";
import { EXHAUSTION } from "./attacks/exhaustion.ts";
import { FILES } from "./attacks/files.ts";
import { FRAMES } from "./attacks/frames.ts";
import { JAVASCRIPT } from "./attacks/javascript.ts";
import { LIBRARIES } from "./attacks/libraries.ts";
import { NATIVE } from "./attacks/native.ts";
import { NEIGHBOURS } from "./attacks/neighbours.ts";
import { NETWORK } from "./attacks/network.ts";
import { PROCESSES } from "./attacks/processes.ts";

/** All that is tried from Python. */
export const TECHNIQUES: readonly Technique[] = [
  PROCESSES,
  JAVASCRIPT,
  NATIVE,
  LIBRARIES,
  FILES,
  NETWORK,
  FRAMES,
  NEIGHBOURS,
  EXHAUSTION,
];
