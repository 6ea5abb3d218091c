/** Limits of what a sandbox displays: the guest keeps them, the host refuses what does not. */

/**
 * Most that is shown at a time, and of the last expression's value, bytes of data; each bundle has {@link BUNDLE_OVERHEAD_BYTES} on top, in each
 * place where it stands. The runner leaves out what is more, and says so.
 */
export const MAX_SHOWN_BYTES = 10 * 1024 * 1024;
/**
 * Most that the bundles one execution displays may come to, bytes of JSON, and what each counts on top of its data: with
 * what was replaced or cleared.
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
