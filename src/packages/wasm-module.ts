// Over 400 lines: a reader of one binary format.
/**
 * Reads a WebAssembly module as strictly as V8 does, and knows no more than what compilers make of C, C++ and Rust for Emscripten: what it
 * does not know it refuses. So nothing in a module that was read here is overlooked.
 */

/** The bytes are no module, or one with something in it that is not known here; `message` says what. */
export class WasmFormatError extends Error {
  override readonly name = "WasmFormatError";
}

export type ExternalKind = "function" | "table" | "memory" | "global" | "tag";

export interface WasmImport {
  readonly module: string;
  readonly name: string;
  readonly kind: ExternalKind;
  /** Of a function: whether it takes and returns nothing but numbers. Of a global: whether it can change. */
  readonly detail: boolean;
}

export interface WasmExport {
  readonly name: string;
  readonly kind: ExternalKind;
  readonly index: number;
}

export interface WasmGlobal {
  readonly isMutable: boolean;
  readonly isNumber: boolean;
}

/** An instruction that changes what an instance keeps outside of its memory, or asks for more memory. */
export interface StateInstruction {
  /** `table.set 0` */
  readonly name: string;
  readonly function: number;
}

export interface WasmModule {
  readonly imports: readonly WasmImport[];
  readonly exports: readonly WasmExport[];
  /** Imported ones first. */
  readonly globals: readonly WasmGlobal[];
  /** That the module defines itself. */
  readonly tableCount: number;
  readonly memoryCount: number;
  readonly tagCount: number;
  /** Index of the function that runs when the module is instantiated. */
  readonly start: number | null;
  /** Segments that stay until code copies or drops them. */
  readonly passiveSegments: number;
  /** By index of the global: functions that set it. */
  readonly settersOfGlobals: ReadonlyMap<number, ReadonlySet<number>>;
  /** Functions that something other than the module's start refers to: calls, elements, exports. */
  readonly referredTo: ReadonlySet<number>;
  readonly stateInstructions: readonly StateInstruction[];
}

const KINDS = ["function", "table", "memory", "global", "tag"] as const;
const CUSTOM = 0;
const TYPE = 1;
const IMPORT = 2;
const FUNCTION = 3;
const TABLE = 4;
const MEMORY = 5;
const GLOBAL = 6;
const EXPORT = 7;
const START = 8;
const ELEMENT = 9;
const CODE = 10;
const DATA = 11;
const DATA_COUNT = 12;
const TAG = 13;
const MAGIC = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];
const FUNCREF = 0x70;
const EXTERNREF = 0x6f;
const EMPTY_BLOCK = 0x40;
/** v128, and the numbers above it. */
const isNumberType = (type: number) => type >= 0x7b && type <= 0x7f;
const isReferenceType = (type: number) => type === FUNCREF || type === EXTERNREF;

/** @throws {WasmFormatError} */
export function readWasmModule(bytes: Uint8Array): WasmModule {
  return new ModuleReader(bytes).read();
}

class ModuleReader {
  #at = 0;
  #end: number;
  readonly #bytes: Uint8Array;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });
  /** Of each type: whether a function of it takes and returns nothing but numbers. */
  readonly #types: boolean[] = [];
  readonly #imports: WasmImport[] = [];
  readonly #exports: WasmExport[] = [];
  readonly #globals: WasmGlobal[] = [];
  readonly #settersOfGlobals = new Map<number, Set<number>>();
  readonly #referredTo = new Set<number>();
  readonly #stateInstructions: StateInstruction[] = [];
  #importedFunctions = 0;
  #tableCount = 0;
  #memoryCount = 0;
  #tagCount = 0;
  #passiveSegments = 0;
  #start: number | null = null;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#end = bytes.length;
  }

  read(): WasmModule {
    for (const byte of MAGIC) if (this.#byte() !== byte) this.#fail("it is no WebAssembly module");
    while (this.#at < this.#bytes.length) {
      this.#end = this.#bytes.length;
      const id = this.#byte();
      const size = this.#u32();
      const end = this.#at + size;
      if (end > this.#bytes.length) this.#fail("it is cut off");
      this.#end = end;
      this.#section(id);
      if (this.#at !== end) this.#fail(`section ${id} is longer than what is in it`);
    }
    return {
      imports: this.#imports,
      exports: this.#exports,
      globals: this.#globals,
      tableCount: this.#tableCount,
      memoryCount: this.#memoryCount,
      tagCount: this.#tagCount,
      start: this.#start,
      passiveSegments: this.#passiveSegments,
      settersOfGlobals: this.#settersOfGlobals,
      referredTo: this.#referredTo,
      stateInstructions: this.#stateInstructions,
    };
  }

  #section(id: number): void {
    const read = this.#readers[id];
    if (read === undefined) this.#fail(`section ${id} is not known`);
    read();
  }

  readonly #readers: Readonly<Record<number, () => void>> = {
    [CUSTOM]: () => {
      this.#at = this.#end;
    },
    [TYPE]: () => this.#repeat(() => this.#type()),
    [IMPORT]: () => this.#repeat(() => this.#import()),
    [FUNCTION]: () => this.#repeat(() => this.#u32()),
    [TABLE]: () =>
      this.#repeat(() => {
        this.#tableType();
        this.#tableCount++;
      }),
    [MEMORY]: () =>
      this.#repeat(() => {
        this.#limits();
        this.#memoryCount++;
      }),
    [GLOBAL]: () =>
      this.#repeat(() => {
        this.#globals.push(this.#globalType());
        this.#constantExpression();
      }),
    [EXPORT]: () => this.#repeat(() => this.#export()),
    [START]: () => {
      this.#start = this.#u32();
    },
    [ELEMENT]: () => this.#repeat(() => this.#elements()),
    [CODE]: () => {
      let index = this.#importedFunctions;
      this.#repeat(() => this.#body(index++));
    },
    [DATA]: () => this.#repeat(() => this.#data()),
    [DATA_COUNT]: () => void this.#u32(),
    [TAG]: () =>
      this.#repeat(() => {
        this.#byte();
        this.#u32();
        this.#tagCount++;
      }),
  };

  #export(): void {
    const name = this.#text();
    const kind = this.#kind();
    const index = this.#u32();
    if (kind === "function") this.#referredTo.add(index);
    this.#exports.push({ name, kind, index });
  }

  #type(): void {
    if (this.#byte() !== 0x60) this.#fail("it has a type that is not one of a function");
    let isNumeric = true;
    const valueType = () => {
      const type = this.#byte();
      if (!isNumberType(type) && !isReferenceType(type)) this.#fail(`the type ${hex(type)} is not known`);
      isNumeric &&= isNumberType(type);
    };
    this.#repeat(valueType);
    this.#repeat(valueType);
    this.#types.push(isNumeric);
  }

  #import(): void {
    const module = this.#text();
    const name = this.#text();
    const kind = this.#kind();
    let detail = true;
    if (kind === "function") {
      detail = this.#types[this.#u32()] ?? this.#fail("it has a function of no type");
      this.#importedFunctions++;
    } else if (kind === "table") {
      this.#tableType();
    } else if (kind === "memory") {
      this.#limits();
    } else if (kind === "global") {
      const type = this.#globalType();
      detail = type.isMutable;
      this.#globals.push(type);
    } else {
      this.#byte();
      detail = this.#types[this.#u32()] ?? this.#fail("it has a tag of no type");
    }
    this.#imports.push({ module, name, kind, detail });
  }

  #tableType(): void {
    if (!isReferenceType(this.#byte())) this.#fail("it has a table of a kind that is not known");
    this.#limits();
  }

  /** The size of a table or memory. Of a memory that threads share, or of 64 bits, nothing is known here. */
  #limits(): void {
    const flags = this.#byte();
    if (flags > 1) this.#fail("it has a memory or table of a kind that is not known");
    this.#u32();
    if (flags === 1) this.#u32();
  }

  #globalType(): WasmGlobal {
    const type = this.#byte();
    const mutability = this.#byte();
    if (mutability > 1) this.#fail("it has a variable of a kind that is not known");
    if (!isNumberType(type) && !isReferenceType(type)) this.#fail(`the type ${hex(type)} is not known`);
    return { isMutable: mutability === 1, isNumber: isNumberType(type) };
  }

  #elements(): void {
    const flags = this.#u32();
    if (flags > 7) this.#fail("it has elements of a kind that is not known");
    const isActive = (flags & 1) === 0;
    if (!isActive && (flags & 2) === 0) this.#passiveSegments++;
    if (isActive) {
      if (flags & 2) this.#u32();
      this.#constantExpression();
    }
    // The kind of the elements, or their type.
    if (flags & 3) this.#byte();
    this.#repeat(() => {
      if (flags & 4) this.#constantExpression();
      else this.#referredTo.add(this.#u32());
    });
  }

  #data(): void {
    const flags = this.#u32();
    if (flags > 2) this.#fail("it has data of a kind that is not known");
    if (flags === 1) this.#passiveSegments++;
    else {
      if (flags === 2) this.#u32();
      this.#constantExpression();
    }
    const size = this.#u32();
    this.#skip(size);
  }

  #constantExpression(): void {
    for (;;) {
      const code = this.#byte();
      if (code === 0x0b) return;
      if (code === 0x41) this.#signed(32);
      else if (code === 0x42) this.#signed(64);
      else if (code === 0x43) this.#skip(4);
      else if (code === 0x44) this.#skip(8);
      else if (code === 0x23) this.#u32();
      else if (code === 0xd0) this.#referenceType();
      else if (code === 0xd2) this.#referredTo.add(this.#u32());
      // Sums of addresses.
      else if (!(code >= 0x6a && code <= 0x6c) && !(code >= 0x7c && code <= 0x7e)) this.#unknown(code);
    }
  }

  #body(index: number): void {
    const size = this.#u32();
    const sectionEnd = this.#end;
    const end = this.#at + size;
    if (end > sectionEnd) this.#fail("a function is cut off");
    this.#end = end;
    this.#repeat(() => {
      this.#u32();
      const type = this.#byte();
      // `exnref` besides: what a handler has caught.
      if (!isNumberType(type) && !isReferenceType(type) && type !== 0x69)
        this.#fail(`the type ${hex(type)} is not known`);
    });
    let depth = 1;
    while (depth > 0) depth += this.#instruction(index);
    if (this.#at !== end) this.#fail("a function goes on behind its end");
    this.#end = sectionEnd;
  }

  /** @returns by how much blocks are nested deeper after it. */
  #instruction(inFunction: number): number {
    const code = this.#byte();
    if (code >= 0x45 && code <= 0xc4) return 0;
    if (code >= 0x28 && code <= 0x3e) return this.#memoryArgument();
    switch (code) {
      case 0x00: // unreachable
      case 0x01: // nop
      case 0x05: // else
      case 0x0a: // throw_ref
      case 0x0f: // return
      case 0x19: // catch_all
      case 0x1a: // drop
      case 0x1b: // select
      case 0xd1: // ref.is_null
        return 0;
      case 0x02: // block
      case 0x03: // loop
      case 0x04: // if
      case 0x06: // try
        this.#blockType();
        return 1;
      case 0x1f: // try_table
        this.#blockType();
        this.#repeat(() => {
          const kind = this.#byte();
          if (kind > 3) this.#fail("it catches in a way that is not known");
          if (kind < 2) this.#u32();
          this.#u32();
        });
        return 1;
      case 0x0b: // end
        return -1;
      case 0x18: // delegate
        this.#u32();
        return -1;
      case 0x07: // catch
      case 0x08: // throw
      case 0x09: // rethrow
      case 0x0c: // br
      case 0x0d: // br_if
      case 0x20: // local.get
      case 0x21: // local.set
      case 0x22: // local.tee
      case 0x23: // global.get
      case 0x25: // table.get
        this.#u32();
        return 0;
      case 0x0e: // br_table
        this.#repeat(() => this.#u32());
        this.#u32();
        return 0;
      case 0x10: // call
      case 0x12: // return_call
      case 0xd2: // ref.func
        this.#referredTo.add(this.#u32());
        return 0;
      case 0x11: // call_indirect
      case 0x13: // return_call_indirect
        this.#u32();
        this.#u32();
        return 0;
      case 0x1c: // select with types
        this.#repeat(() => this.#byte());
        return 0;
      case 0x24: {
        // global.set
        const global = this.#u32();
        const setters = this.#settersOfGlobals.get(global) ?? new Set();
        this.#settersOfGlobals.set(global, setters.add(inFunction));
        return 0;
      }
      case 0x26:
        return this.#changesState(inFunction, "table.set");
      case 0x3f: // memory.size
        this.#u32();
        return 0;
      case 0x40:
        return this.#changesState(inFunction, "memory.grow");
      case 0x41:
        this.#signed(32);
        return 0;
      case 0x42:
        this.#signed(64);
        return 0;
      case 0x43:
        return this.#skip(4);
      case 0x44:
        return this.#skip(8);
      case 0xd0:
        return this.#referenceType();
      case 0xfc:
        return this.#bulkInstruction(inFunction);
      case 0xfd:
        return this.#vectorInstruction();
      default:
        return this.#unknown(code);
    }
  }

  #bulkInstruction(inFunction: number): number {
    const code = this.#u32();
    // Conversions that saturate.
    if (code <= 7) return 0;
    switch (code) {
      case 8:
        this.#u32();
        return this.#changesState(inFunction, "memory.init");
      case 9:
        return this.#changesState(inFunction, "data.drop");
      case 10: // memory.copy
        this.#u32();
        this.#u32();
        return 0;
      case 11: // memory.fill
      case 16: // table.size
        this.#u32();
        return 0;
      case 12:
        this.#u32();
        return this.#changesState(inFunction, "table.init");
      case 13:
        return this.#changesState(inFunction, "elem.drop");
      case 14: {
        const target = this.#u32();
        this.#u32();
        this.#stateInstructions.push({ name: `table.copy ${target}`, function: inFunction });
        return 0;
      }
      case 15:
        return this.#changesState(inFunction, "table.grow");
      case 17:
        return this.#changesState(inFunction, "table.fill");
      default:
        return this.#fail(`the instruction 0xfc ${code} is not known`);
    }
  }

  #vectorInstruction(): number {
    const code = this.#u32();
    if (code <= 11 || code === 92 || code === 93) return this.#memoryArgument();
    if (code === 12 || code === 13) return this.#skip(16);
    if (code >= 21 && code <= 34) return this.#skip(1);
    if (code >= 84 && code <= 91) {
      this.#memoryArgument();
      return this.#skip(1);
    }
    if (code > 275) this.#fail(`the instruction 0xfd ${code} is not known`);
    return 0;
  }

  #changesState(inFunction: number, name: string): number {
    this.#stateInstructions.push({ name: `${name} ${this.#u32()}`, function: inFunction });
    return 0;
  }

  #memoryArgument(): number {
    // From 64 on it names another memory.
    if (this.#u32() >= 64) this.#fail("it uses more than one memory");
    this.#u32();
    return 0;
  }

  #blockType(): void {
    const type = this.#bytes[this.#at] as number;
    if (type === EMPTY_BLOCK || isNumberType(type) || isReferenceType(type) || type === 0x69) this.#byte();
    else this.#signed(33);
  }

  #referenceType(): number {
    if (!isReferenceType(this.#byte())) this.#fail("it has a reference of a kind that is not known");
    return 0;
  }

  #kind(): ExternalKind {
    return KINDS[this.#byte()] ?? this.#fail("it imports or exports something of a kind that is not known");
  }

  #text(): string {
    const length = this.#u32();
    const from = this.#at;
    this.#skip(length);
    try {
      return this.#decoder.decode(this.#bytes.subarray(from, this.#at));
    } catch {
      return this.#fail("a name in it is not UTF-8");
    }
  }

  #repeat(read: () => unknown): void {
    for (let left = this.#u32(); left > 0; left--) read();
  }

  #byte(): number {
    if (this.#at >= this.#end) this.#fail("it is cut off");
    return this.#bytes[this.#at++] as number;
  }

  #skip(bytes: number): number {
    this.#at += bytes;
    if (this.#at > this.#end) this.#fail("it is cut off");
    return 0;
  }

  #u32(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.#byte();
      if (shift === 28 && byte > 0x0f) break;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    return this.#fail("a number in it is too long");
  }

  /** Passes over a signed number. */
  #signed(bits: number): void {
    for (let left = Math.ceil(bits / 7); left > 0; left--) if (this.#byte() < 0x80) return;
    this.#fail("a number in it is too long");
  }

  #unknown(code: number): never {
    return this.#fail(`the instruction ${hex(code)} is not known`);
  }

  #fail(message: string): never {
    throw new WasmFormatError(message);
  }
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, "0")}`;
}
