/** How long an interrupted execution may take to end before its process is killed, ms. */
export const KILL_GRACE_MS = 250;
/** The same with all time in which the process waited for a processor: on a busy machine it could not react. */
export const MAX_KILL_GRACE_MS = 2000;
