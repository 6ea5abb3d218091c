import type { Technique } from "./attack.ts";
import { CHANCE } from "./attacks/chance.ts";
import { EXHAUSTION } from "./attacks/exhaustion.ts";
import { FILES } from "./attacks/files.ts";
import { FRAMES } from "./attacks/frames.ts";
import { INJECTION } from "./attacks/injection.ts";
import { JAVASCRIPT } from "./attacks/javascript.ts";
import { LIBRARIES } from "./attacks/libraries.ts";
import { LIMITS } from "./attacks/limits.ts";
import { NATIVE } from "./attacks/native.ts";
import { NEIGHBOURS } from "./attacks/neighbours.ts";
import { NETWORK } from "./attacks/network.ts";
import { NETWORK_ANYWHERE, NETWORK_NAMED } from "./attacks/network-allowed.ts";
import { PROCESSES } from "./attacks/processes.ts";
import { SESSIONS } from "./attacks/sessions.ts";
import { TIMING } from "./attacks/timing.ts";
import { TOOLS } from "./attacks/tools.ts";
import { UNBOUNDED } from "./attacks/unbounded.ts";

/** All that is tried from outside the sandbox process: by Python in it, or by requests. */
export const TECHNIQUES: readonly Technique[] = [
  PROCESSES,
  JAVASCRIPT,
  NATIVE,
  LIBRARIES,
  FILES,
  NETWORK,
  NETWORK_ANYWHERE,
  NETWORK_NAMED,
  FRAMES,
  NEIGHBOURS,
  SESSIONS,
  CHANCE,
  TIMING,
  INJECTION,
  EXHAUSTION,
  UNBOUNDED,
  LIMITS,
  TOOLS,
];
