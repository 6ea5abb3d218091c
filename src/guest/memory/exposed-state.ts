/**
 * State of a WebAssembly instance that is not in its memory: global variables that can change, and tables. A rewind has to know all of it, and the
 * instance's program exports but a part. So the program is changed, before it is compiled, to export the rest.
 */

const IMPORT_SECTION = 2;
const TABLE_SECTION = 4;
const GLOBAL_SECTION = 6;
const EXPORT_SECTION = 7;
const [FUNCTION_KIND, TABLE_KIND, MEMORY_KIND, GLOBAL_KIND, TAG_KIND] = [0, 1, 2, 3, 4];
const HEADER_BYTES = 8;
const FUNCREF = 0x70;
const NUMBER_TYPES = [0x7f, 0x7e, 0x7d, 0x7c];
/** Begins the names of the exports that are added. Emscripten gives what is called so no address. */
const PREFIX = "__em_js__state:";
/** Room before a program for what is added to it. */
export const ROOM_BYTES = 1024;

/** What an instance keeps outside of its memory. */
export interface ExposedState {
  /** All that can be written to. */
  readonly globals: readonly WebAssembly.Global[];
  /** All that the program defines. The first is the function table. */
  readonly tables: readonly WebAssembly.Table[];
}

/**
 * Has a program export every global variable that can change, and every table.
 *
 * @param file the program behind {@link ROOM_BYTES} of room, into which the sections before its code are moved: copying all of it would take
 *   longer than the rest of this.
 * @throws {Error} if it has state of a kind that is not known here: what is not known is not rewound.
 */
export function exposeState(file: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const program = file.subarray(ROOM_BYTES);
  const found = findState(program);
  const entries = [
    ...found.globals.map((index) => ["global", GLOBAL_KIND, index] as const),
    ...found.tables.map((index) => ["table", TABLE_KIND, index] as const),
  ];
  const added = entries.flatMap(([what, kind, index]) => {
    const name = new TextEncoder().encode(`${PREFIX}${what}:${index}`);
    return [...leb128(name.length), ...name, kind as number, ...leb128(index)];
  });
  const { from, to, count, entriesFrom } = found.exports;
  const head = leb128(count + entries.length);
  const begin = [EXPORT_SECTION, ...leb128(head.length + (to - entriesFrom) + added.length), ...head];
  const growth = begin.length - (entriesFrom - from) + added.length;
  if (growth > ROOM_BYTES) throw new Error("the program has more state than there is room for");
  const result = file.subarray(ROOM_BYTES - growth);
  // From the beginning on: what is read lies behind what is written.
  result.copyWithin(0, growth, growth + from);
  result.copyWithin(from + begin.length, growth + entriesFrom, growth + to);
  result.set(begin, from);
  result.set(added, growth + to - added.length);
  return result;
}

/** @returns what was added to a program's exports. */
export function stateOf(exports: WebAssembly.Exports): ExposedState {
  const globals: WebAssembly.Global[] = [];
  const tables: WebAssembly.Table[] = [];
  for (const name in exports) {
    if (!name.startsWith(PREFIX)) continue;
    const value = exports[name] as WebAssembly.ExportValue;
    if (value instanceof WebAssembly.Global) globals.push(value);
    else tables.push(value as WebAssembly.Table);
  }
  return { globals, tables };
}

/** Takes from Emscripten's list of symbols what was added to a program's exports: no library is to link to it. */
export function withdrawState(symbols: Record<string, unknown>): void {
  for (const name in symbols) if (name.startsWith(PREFIX)) delete symbols[name];
}

interface FoundState {
  readonly globals: readonly number[];
  readonly tables: readonly number[];
  /** The export section, its entries and their number. */
  readonly exports: {
    readonly from: number;
    readonly entriesFrom: number;
    readonly to: number;
    readonly count: number;
  };
}

function findState(program: Uint8Array): FoundState {
  const reader = new Reader(program);
  const globals: number[] = [];
  const tables: number[] = [];
  let exports: FoundState["exports"] | undefined;
  let importedGlobals = 0;
  let importedTables = 0;
  reader.at = HEADER_BYTES;
  while (reader.at < program.length) {
    const from = reader.at;
    const id = reader.byte();
    const bytes = reader.number();
    const to = reader.at + bytes;
    if (id === IMPORT_SECTION) {
      reader.repeat(() => {
        reader.skipText();
        reader.skipText();
        const kind = reader.byte();
        if (kind === FUNCTION_KIND) reader.number();
        else if (kind === TABLE_KIND) {
          reader.byte();
          reader.limits();
          importedTables++;
        } else if (kind === MEMORY_KIND) reader.limits();
        else if (kind === GLOBAL_KIND) {
          reader.at += 2;
          importedGlobals++;
        } else if (kind === TAG_KIND) {
          reader.at++;
          reader.number();
        } else throw new Error("the program imports something of an unknown kind");
      });
    } else if (id === TABLE_SECTION) {
      let index = importedTables;
      reader.repeat(() => {
        const type = reader.byte();
        if (type !== FUNCREF && type !== FUNCREF - 1) throw new Error("the program has a table of an unknown kind");
        reader.limits();
        tables.push(index++);
      });
    } else if (id === GLOBAL_SECTION) {
      let index = importedGlobals;
      reader.repeat(() => {
        const type = reader.byte();
        const isMutable = reader.byte() === 1;
        if (isMutable && !NUMBER_TYPES.includes(type)) throw new Error("the program has a variable that is no number");
        if (isMutable) globals.push(index);
        reader.skipExpression();
        index++;
      });
    } else if (id === EXPORT_SECTION) {
      const count = reader.number();
      exports = { from, entriesFrom: reader.at, to, count };
    }
    reader.at = to;
  }
  if (exports === undefined) throw new Error("the program exports nothing");
  return { globals, tables, exports };
}

class Reader {
  at = 0;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  byte(): number {
    return this.#bytes[this.at++] as number;
  }

  /** Unsigned LEB128. */
  number(): number {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = this.byte();
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  }

  skipText(): void {
    const length = this.number();
    this.at += length;
  }

  limits(): void {
    const hasMaximum = this.byte() & 1;
    this.number();
    if (hasMaximum) this.number();
  }

  repeat(read: () => void): void {
    for (let left = this.number(); left > 0; left--) read();
  }

  /** One constant, or another variable. */
  skipExpression(): void {
    const code = this.byte();
    if (code === 0x41 || code === 0x42 || code === 0x23) while (this.byte() >= 128);
    else if (code === 0x43) this.at += 4;
    else if (code === 0x44) this.at += 8;
    else throw new Error("the program has a variable of an unknown beginning");
    if (this.byte() !== 0x0b) throw new Error("the program has a variable of an unknown beginning");
  }
}

function leb128(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest & 127) | 128);
  }
}
