/** Limits of what a sandbox displays: the guest keeps them, the host refuses what does not. */

/**
 * Most that the bundles one execution displays may come to, bytes of JSON, and what each counts on top of its data. Looser than
 * the runner's own limit of 10 MiB of data, which user code can evade.
 */
export const MAX_DISPLAY_BYTES = 64 * 1024 * 1024;
export const BUNDLE_OVERHEAD_BYTES = 1024;
/** Bundles of one execution; each has its place in the reply. */
export const MAX_DISPLAYS = 12_000;
/** Representations in one bundle. */
export const MAX_BUNDLE_MEMBERS = 100;
export const MAX_DISPLAY_ID_CHARACTERS = 256;
/** Of what is said about a bundle's data, bytes of JSON, and levels of it. */
export const MAX_METADATA_BYTES = 16 * 1024;
export const MAX_METADATA_DEPTH = 16;
