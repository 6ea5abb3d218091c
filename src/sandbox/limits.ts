/** How long an interrupted execution may take to end before its process is killed, ms. */
export const KILL_GRACE_MS = 250;
