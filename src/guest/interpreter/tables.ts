import { ImageFormatError, type ImageHeader } from "../../wire/image-format.ts";
import type { Exports, Module } from "./emscripten.ts";
import type { Program } from "./load.ts";

/**
 * Makes stack, function table and references into JavaScript as long as they were when the image was made, so that whatever is loaded
 * from here on lands where it did then. What stood in those places was Pyodide's own, which a sandbox does not have: a
 * slot of the table holds nothing (a call of it ends the sandbox), a reference an empty object.
 */
export function adoptTables(header: ImageHeader, { module, exports }: Program): void {
  const { tableLength, freeTableSlots, referenceSlots, stackPointer } = header;
  // The arguments of Python's `main` stand above it.
  exports.__stack_pointer.value = stackPointer;
  const missing = tableLength - module.wasmTable.length;
  if (missing < 0) throw new ImageFormatError(`the function table has ${-missing} slots more than the image's`);
  module.wasmTable.grow(missing);
  module.freeTableIndexes.push(...freeTableSlots);
  const nothing = Object.freeze(Object.create(null));
  for (const slot of referenceSlots) {
    if (module.__hiwire_set(slot, nothing) < 0) throw new ImageFormatError("the image's references have no place");
  }
}

/** What an image says of the JavaScript side besides its memory. */
export function tablesOf(program: Program) {
  const { module, exports } = program;
  const isUsed = (value: unknown) => value !== null && value !== undefined;
  return {
    tableLength: module.wasmTable.length,
    freeTableSlots: [...module.freeTableIndexes],
    references: exports.hiwire_num_refs(),
    referenceSlots: contentOf(referenceTable(program)).flatMap((value, slot) => (isUsed(value) ? [slot] : [])),
    stackPointer: exports.__stack_pointer.value,
  };
}

/** The table of the JavaScript objects that Python refers to; null and undefined where a place is free. */
function referenceTable({ module, state }: Program): WebAssembly.Table {
  const found = state.tables.filter((table) => table !== module.wasmTable && holds(table, module.__hiwire_get));
  const [table] = found;
  if (!table || found.length > 1) throw new Error("the table of references is not among those of the program");
  return table;
}

/** Whether a table is the one from which `get` gets. */
function holds(table: WebAssembly.Table, get: (index: number) => unknown): boolean {
  try {
    return contentOf(table).every((value, index) => get(index) === value);
  } catch {
    // It is longer than the other.
    return false;
  }
}

/** All that a table holds. */
export function contentOf(table: WebAssembly.Table): unknown[] {
  return Array.from({ length: table.length }, (_, index) => table.get(index));
}

/** @throws {ImageFormatError} if this process is not as the one that made the image was at the same point. */
export function fitImage(header: ImageHeader, module: Module, exports: Exports): void {
  const facts: [string, unknown, unknown][] = [
    ["function table", module.wasmTable.length, header.tableLength],
    ["free slots of the function table", module.freeTableIndexes.join(), header.freeTableSlots.join()],
    ["references into JavaScript", exports.hiwire_num_refs(), header.references],
    ["stack pointer", exports.__stack_pointer.value, header.stackPointer],
    ["heap", exports.memory.buffer.byteLength >= header.heapBytes, true],
  ];
  for (const [what, here, there] of facts) {
    if (here !== there) throw new ImageFormatError(`the image does not fit: ${what} ${here}, not ${there}`);
  }
}

/** Which slots of the function table there are, and which of them are free. */
export function slotsOf({ wasmTable, freeTableIndexes }: Module): string {
  return [wasmTable.length, ...freeTableIndexes].join();
}
