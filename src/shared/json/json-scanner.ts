import { isUtf8 } from "node:buffer";
import { setImmediate } from "node:timers/promises";

/** The text is not JSON as RFC 8259 has it, or not UTF-8. */
export class JsonSyntaxError extends Error {
  override readonly name = "JsonSyntaxError";
}

/** The text is deeper, or has more values, than is taken; `message` says which. */
export class JsonLimitError extends Error {
  override readonly name = "JsonLimitError";
}

export interface JsonLimits {
  /** Arrays and objects inside each other; 0: none. */
  readonly maxDepth: number;
  /** Values of any kind, the outermost included. */
  readonly maxNodes: number;
  /**
   * Bytes that the name of a member may have, an escape counted as one; default {@link MAX_NAME_BYTES}. V8 tells names of 16,384 characters and more apart by
   * their length and by comparing them, so an object with many of one length takes time that grows with the square of their number.
   */
  readonly maxNameBytes?: number;
  /** Refuse whitespace between tokens: a line then holds one text, and a text is in one line. */
  readonly compact?: boolean;
}

/** What a text holds. */
export interface JsonFacts {
  readonly kind: "object" | "array" | "text" | "other";
  readonly depth: number;
  readonly nodes: number;
  /** How many of the nodes are strings. */
  readonly texts: number;
  /** What they say, bytes; an escape counts as one. */
  readonly textBytes: number;
}

export const MAX_NAME_BYTES = 10_000;

/** Bytes that are scanned before the event loop has its turn: 1 to 2 ms [measured]. */
const SLICE_BYTES = 256 * 1024;

const [VALUE, FIRST_ELEMENT, FIRST_KEY, KEY, COLON, AFTER_VALUE, END] = [0, 1, 2, 3, 4, 5, 6];
const [TEXT, ESCAPE, UNICODE, LITERAL] = [7, 8, 9, 10];
const [MINUS, ZERO, INTEGER, POINT, FRACTION, EXPONENT_MARK, EXPONENT_SIGN, EXPONENT] = [
  11, 12, 13, 14, 15, 16, 17, 18,
];
const [OBJECT, ARRAY] = [1, 2];

/** 1: a byte that stands for itself inside a string. */
const PLAIN = Uint8Array.from({ length: 256 }, (_, byte) => Number(byte >= 0x20 && byte !== 0x22 && byte !== 0x5c));
const SPACE = Uint8Array.from({ length: 256 }, (_, byte) => Number([0x20, 0x0a, 0x0d, 0x09].includes(byte)));
const DIGIT = Uint8Array.from({ length: 256 }, (_, byte) => Number(byte >= 0x30 && byte <= 0x39));
const HEX = Uint8Array.from({ length: 256 }, (_, byte) => Number(/[0-9a-f]/i.test(String.fromCharCode(byte))));
const ESCAPED = Uint8Array.from({ length: 256 }, (_, byte) => Number('"\\/bfnrt'.includes(String.fromCharCode(byte))));
const [QUOTE, BACKSLASH, COMMA, COLON_SIGN, DASH, DOT] = [0x22, 0x5c, 0x2c, 0x3a, 0x2d, 0x2e] as const;
const [OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY, CLOSE_ARRAY] = [0x7b, 0x7d, 0x5b, 0x5d] as const;
const LITERALS: Readonly<Record<number, string>> = { 116: "true", 102: "false", 110: "null" };

/**
 * Scans a whole text.
 *
 * @throws {JsonSyntaxError}
 * @throws {JsonLimitError} as soon as a limit is passed.
 */
export function scanJson(bytes: Uint8Array, limits: JsonLimits): JsonFacts {
  if (!isUtf8(bytes)) throw new JsonSyntaxError("not UTF-8");
  const scanner = new JsonScanner(limits);
  scanner.push(bytes, 0, bytes.length);
  return scanner.finish();
}

/** As {@link scanJson}; a large text in slices, between which the event loop has its turn. */
export async function scanJsonInSlices(bytes: Uint8Array, limits: JsonLimits): Promise<JsonFacts> {
  if (bytes.length <= SLICE_BYTES) return scanJson(bytes, limits);
  const scanner = new JsonScanner(limits);
  for (let from = 0; from < bytes.length; ) {
    const to = characterEnd(bytes, Math.min(from + SLICE_BYTES, bytes.length));
    if (!isUtf8(bytes.subarray(from, to))) throw new JsonSyntaxError("not UTF-8");
    scanner.push(bytes, from, to);
    from = to;
    await setImmediate();
  }
  return scanner.finish();
}

/** The first place from `at` on where no character is cut; a run that has no such place is no UTF-8 in either half. */
function characterEnd(bytes: Uint8Array, at: number): number {
  let end = at;
  while (end < bytes.length && end < at + 3 && ((bytes[end] as number) & 0xc0) === 0x80) end++;
  return end;
}

/** An automaton over bytes: it can stop after any, and go on with the next. */
class JsonScanner {
  readonly #maxDepth: number;
  readonly #maxNodes: number;
  readonly #compact: boolean;
  readonly #maxName: number;
  /** What is open, from depth 1: {@link OBJECT} or {@link ARRAY}. It grows: most texts are a few levels deep, whatever they may be. */
  readonly #open: number[] = [0];
  #state = VALUE;
  #depth = 0;
  #deepest = 0;
  #nodes = 0;
  #texts = 0;
  #textBytes = 0;
  #kind: JsonFacts["kind"] = "other";
  #isKey = false;
  /** What the name may still have: a character has a byte or an escape at least. */
  #nameLeft = 0;
  /** What is left of a literal, or of the digits of `\uXXXX`. */
  #left = "";
  #digits = 0;

  constructor({ maxDepth, maxNodes, compact = false, maxNameBytes = MAX_NAME_BYTES }: JsonLimits) {
    this.#maxDepth = maxDepth;
    this.#maxNodes = maxNodes;
    this.#compact = compact;
    this.#maxName = maxNameBytes;
  }

  push(bytes: Uint8Array, from: number, to: number): void {
    let at = from;
    while (at < to) {
      switch (this.#state) {
        case TEXT: {
          const start = at;
          while (at < to && PLAIN[bytes[at] as number] === 1) at++;
          if (this.#isKey) this.#takeOfName(at - start);
          else this.#textBytes += at - start;
          if (at === to) return;
          if (bytes[at] === QUOTE) this.#state = this.#isKey ? COLON : this.#afterValue();
          else if (bytes[at] === BACKSLASH) {
            if (this.#isKey) this.#takeOfName(1);
            else this.#textBytes++;
            this.#state = ESCAPE;
          } else throw new JsonSyntaxError("a control character in a string");
          at++;
          break;
        }
        case INTEGER:
        case FRACTION:
        case EXPONENT:
          while (at < to && DIGIT[bytes[at] as number] === 1) at++;
          if (at === to) return;
          at += this.#afterDigits(bytes[at] as number);
          break;
        default:
          at += this.#step(bytes[at] as number);
      }
    }
  }

  finish(): JsonFacts {
    const isNumber = this.#depth === 0 && [ZERO, INTEGER, FRACTION, EXPONENT].includes(this.#state);
    if (this.#state !== END && !isNumber) throw new JsonSyntaxError("cut off");
    return {
      kind: this.#kind,
      depth: this.#deepest,
      nodes: this.#nodes,
      texts: this.#texts,
      textBytes: this.#textBytes,
    };
  }

  /** @returns 1 if the byte was taken; 0: it is to be looked at in the new state. */
  #step(byte: number): 0 | 1 {
    switch (this.#state) {
      case ESCAPE:
        if (byte === 0x75) {
          this.#digits = 4;
          this.#state = UNICODE;
        } else if (ESCAPED[byte] === 1) this.#state = TEXT;
        else throw new JsonSyntaxError("an unknown escape");
        return 1;
      case UNICODE:
        if (HEX[byte] !== 1) throw new JsonSyntaxError("an escape that is none");
        if (--this.#digits === 0) this.#state = TEXT;
        return 1;
      case LITERAL:
        if (this.#left.charCodeAt(0) !== byte) throw new JsonSyntaxError("an unknown word");
        this.#left = this.#left.slice(1);
        if (this.#left === "") this.#state = this.#afterValue();
        return 1;
      case MINUS:
        if (DIGIT[byte] !== 1) throw new JsonSyntaxError("a minus without a number");
        this.#state = byte === 0x30 ? ZERO : INTEGER;
        return 1;
      case ZERO:
        return this.#afterDigits(byte);
      case POINT:
      case EXPONENT_SIGN:
        if (DIGIT[byte] !== 1) throw new JsonSyntaxError("a number that ends early");
        this.#state = this.#state === POINT ? FRACTION : EXPONENT;
        return 1;
      case EXPONENT_MARK:
        if (byte === 0x2b || byte === DASH) this.#state = EXPONENT_SIGN;
        else if (DIGIT[byte] === 1) this.#state = EXPONENT;
        else throw new JsonSyntaxError("an exponent that is none");
        return 1;
    }
    if (SPACE[byte] === 1) {
      if (this.#compact) throw new JsonSyntaxError("whitespace where there can be none");
      return 1;
    }
    switch (this.#state) {
      case FIRST_ELEMENT:
        if (byte === CLOSE_ARRAY) this.#close(ARRAY);
        else this.#begin(byte);
        return 1;
      case VALUE:
        this.#begin(byte);
        return 1;
      case FIRST_KEY:
        if (byte === CLOSE_OBJECT) {
          this.#close(OBJECT);
          return 1;
        }
        this.#beginKey(byte);
        return 1;
      case KEY:
        this.#beginKey(byte);
        return 1;
      case COLON:
        if (byte !== COLON_SIGN) throw new JsonSyntaxError("a name without a colon");
        this.#state = VALUE;
        return 1;
      case AFTER_VALUE:
        if (byte === COMMA) this.#state = this.#open[this.#depth] === OBJECT ? KEY : VALUE;
        else if (byte === CLOSE_OBJECT) this.#close(OBJECT);
        else if (byte === CLOSE_ARRAY) this.#close(ARRAY);
        else throw new JsonSyntaxError("no comma between values");
        return 1;
      default:
        throw new JsonSyntaxError("something after the end");
    }
  }

  #afterDigits(byte: number): 0 | 1 {
    const state = this.#state;
    if (byte === DOT && (state === INTEGER || state === ZERO)) this.#state = POINT;
    else if ((byte === 0x65 || byte === 0x45) && state !== EXPONENT) this.#state = EXPONENT_MARK;
    else {
      this.#state = this.#afterValue();
      return 0;
    }
    return 1;
  }

  #afterValue(): number {
    return this.#depth === 0 ? END : AFTER_VALUE;
  }

  #begin(byte: number): void {
    if (++this.#nodes > this.#maxNodes) throw new JsonLimitError(`it has more than ${this.#maxNodes} values`);
    const isRoot = this.#nodes === 1;
    if (byte === QUOTE) {
      this.#texts++;
      this.#isKey = false;
      this.#state = TEXT;
      if (isRoot) this.#kind = "text";
    } else if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) {
      if (++this.#depth > this.#maxDepth) throw new JsonLimitError(`it is deeper than ${this.#maxDepth} levels`);
      if (this.#depth > this.#deepest) this.#deepest = this.#depth;
      this.#open[this.#depth] = byte === OPEN_OBJECT ? OBJECT : ARRAY;
      this.#state = byte === OPEN_OBJECT ? FIRST_KEY : FIRST_ELEMENT;
      if (isRoot) this.#kind = byte === OPEN_OBJECT ? "object" : "array";
    } else if (byte === DASH) this.#state = MINUS;
    else if (byte === 0x30) this.#state = ZERO;
    else if (DIGIT[byte] === 1) this.#state = INTEGER;
    else {
      const literal = LITERALS[byte];
      if (literal === undefined) throw new JsonSyntaxError("no value where one has to be");
      this.#left = literal.slice(1);
      this.#state = LITERAL;
    }
  }

  #beginKey(byte: number): void {
    if (byte !== QUOTE) throw new JsonSyntaxError("no name where one has to be");
    this.#isKey = true;
    this.#nameLeft = this.#maxName;
    this.#state = TEXT;
  }

  #takeOfName(bytes: number): void {
    this.#nameLeft -= bytes;
    if (this.#nameLeft < 0) throw new JsonLimitError(`it has a name of more than ${this.#maxName} bytes`);
  }

  #close(kind: number): void {
    if (this.#open[this.#depth] !== kind) throw new JsonSyntaxError("a bracket of the wrong kind");
    this.#depth--;
    this.#state = this.#afterValue();
  }
}
