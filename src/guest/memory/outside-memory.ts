import type { Exports, Module } from "../interpreter/emscripten.ts";
import type { Program } from "../interpreter/load.ts";
import { contentOf } from "../interpreter/tables.ts";

interface Variable {
  readonly variable: WebAssembly.Global;
  readonly value: unknown;
}

interface References {
  readonly table: WebAssembly.Table;
  readonly values: readonly unknown[];
}

/**
 * The state of WebAssembly that is not in its memory: global variables and tables of the interpreter's program. The program exports every
 * one (`exposed-state.ts`). Shared libraries have none of their own that could change (`library-check.ts` on the host refuses others).
 *
 * Variables are put back. Tables that differ mean that the process must not be used again.
 */
export class OutsideMemory {
  /** Where no frame is between two executions, bytes from and to. User code can set what the program says of it. */
  readonly deadStack: readonly [from: number, to: number];
  readonly #module: Module;
  readonly #exports: Exports;
  readonly #variables: readonly Variable[];
  readonly #references: readonly References[];
  #referenceCount = 0;
  readonly #functions: WebAssembly.Table;
  #functionCount = 0;
  #freeSlots: readonly number[] = [];
  /** How often a slot of the function table was set, or slots were added, since the baseline. */
  #functionChanges = 0;

  /** Before any code of a package's runs. */
  constructor({ module, exports, state }: Program) {
    this.#module = module;
    this.#exports = exports;
    this.deadStack = [exports.emscripten_stack_get_end(), exports.__stack_pointer.value];
    this.#variables = state.globals.map((variable) => ({ variable, value: variable.value }));
    const [functions, ...others] = state.tables;
    if (functions !== module.wasmTable) throw new Error("the first table is not the function table");
    this.#references = others.map((table) => ({ table, values: contentOf(table) }));
    this.#functions = module.wasmTable;
    this.#watchFunctions();
  }

  /** Takes the function table as it is now, with the libraries', for the baseline's. The memory is the image's. */
  renew(): void {
    this.#referenceCount = this.#exports.hiwire_num_refs();
    this.#functionCount = this.#functions.length;
    this.#freeSlots = [...this.#module.freeTableIndexes];
    this.#functionChanges = 0;
  }

  /** @returns what differs; null: nothing. */
  difference(): string | null {
    // Their number is kept in memory, which a rewind restores; what they refer to is not.
    if (this.#exports.hiwire_num_refs() !== this.#referenceCount) return "JavaScript references";
    for (let at = 0; at < this.#references.length; at++) {
      const { table, values } = this.#references[at] as References;
      if (table.length !== values.length) return "JavaScript references";
      for (let slot = 0; slot < values.length; slot++) {
        if (table.get(slot) !== values[slot]) return "JavaScript references";
      }
    }
    if (this.#functions.length !== this.#functionCount || this.#functionChanges !== 0) return "function table";
    const free = this.#module.freeTableIndexes;
    if (free.length !== this.#freeSlots.length) return "free slots of the function table";
    for (let at = 0; at < free.length; at++) {
      if (free[at] !== this.#freeSlots[at]) return "free slots of the function table";
    }
    return null;
  }

  /** @returns whether a variable is not what it was. */
  differsInVariables(): boolean {
    return this.#variables.some(({ variable, value }) => variable.value !== value);
  }

  /** Makes the variables what they were. */
  restore(): void {
    for (let at = 0; at < this.#variables.length; at++) {
      const { variable, value } = this.#variables[at] as Variable;
      if (variable.value !== value) variable.value = value;
    }
  }

  /** No code of WebAssembly sets a slot of it (`library-check.ts`); what JavaScript does comes through here. */
  #watchFunctions(): void {
    const table = this.#functions;
    const { set, grow } = table;
    const counting =
      <P extends unknown[], R>(change: (...parameters: P) => R) =>
      (...parameters: P): R => {
        this.#functionChanges++;
        return change.apply(table, parameters);
      };
    Object.defineProperty(table, "set", { value: counting(set) });
    Object.defineProperty(table, "grow", { value: counting(grow) });
    Object.preventExtensions(table);
  }
}
