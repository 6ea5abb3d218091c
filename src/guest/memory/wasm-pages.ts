export const WASM_PAGE_BYTES = 65_536;

/** How many pages a memory of so many bytes has: at least one. */
export const pagesFor = (bytes: number) => Math.max(1, Math.ceil(bytes / WASM_PAGE_BYTES));
