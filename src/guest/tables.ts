import { ImageFormatError, type ImageHeader } from "../sandbox/image-format.ts";
import type { Exports, Module } from "./emscripten.ts";
import { references } from "./javascript-state.ts";
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
export function tablesOf({ module, exports }: Program) {
  const isUsed = (value: unknown) => value !== null && value !== undefined;
  return {
    tableLength: module.wasmTable.length,
    freeTableSlots: [...module.freeTableIndexes],
    references: exports.hiwire_num_refs(),
    referenceSlots: references(module).flatMap((value, slot) => (isUsed(value) ? [slot] : [])),
    stackPointer: exports.__stack_pointer.value,
  };
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
