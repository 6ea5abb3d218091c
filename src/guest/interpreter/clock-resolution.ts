/** How fine any clock is that user code can read, ms. What browsers give a page that is not isolated from others. */
export const RESOLUTION_MS = 0.1;
