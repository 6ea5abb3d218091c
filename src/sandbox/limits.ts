/** How long an interrupted execution may take to end before its process is killed, ms. */
export const KILL_GRACE_MS = 250;
/** The same where the process has waited for a processor for half of that time: on a busy machine it could not react before. */
export const MAX_KILL_GRACE_MS = 2000;
