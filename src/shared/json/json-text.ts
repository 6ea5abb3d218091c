import { type JsonFacts, JsonLimitError, type JsonLimits, scanJson, scanJsonInSlices } from "./json-scanner.ts";

/** What the server parses for itself, where it does not say otherwise. */
const PARSE_LIMITS = { maxBytes: 4 * 1024 * 1024, maxNodes: 100_000 };

export type Parsed = { readonly value: unknown } | { readonly tooLarge: string };

/** A value as JSON in UTF-8 that was scanned: it goes on as these bytes, and never through an object. */
export class JsonText {
  readonly bytes: Uint8Array;
  readonly facts: JsonFacts;

  private constructor(bytes: Uint8Array, facts: JsonFacts) {
    this.bytes = bytes;
    this.facts = facts;
  }

  /** @throws {JsonSyntaxError} {@link JsonLimitError} */
  static check(bytes: Uint8Array, limits: JsonLimits): JsonText {
    return new JsonText(bytes, scanJson(bytes, limits));
  }

  /** As {@link check}, while the event loop goes on. */
  static async checkInSlices(bytes: Uint8Array, limits: JsonLimits): Promise<JsonText> {
    return new JsonText(bytes, await scanJsonInSlices(bytes, limits));
  }

  /** A text that is a part of what was scanned already. */
  static scannedText(bytes: Uint8Array): JsonText {
    // At the most: it is not scanned again.
    const textBytes = bytes.length - 2;
    return new JsonText(bytes, { kind: "text", depth: 0, nodes: 1, texts: 1, textBytes });
  }

  /** A value of our own. */
  static of(value: unknown): JsonText {
    const bytes = new TextEncoder().encode(JSON.stringify(value));
    return JsonText.check(bytes, {
      maxDepth: 200,
      maxNodes: Number.POSITIVE_INFINITY,
      maxNameBytes: Number.POSITIVE_INFINITY,
    });
  }

  static readonly null = JsonText.of(null);

  get isNull(): boolean {
    const { bytes } = this;
    return bytes.length === 4 && bytes[0] === 0x6e;
  }

  toString(): string {
    const { buffer, byteOffset, length } = this.bytes;
    return Buffer.from(buffer, byteOffset, length).toString("utf8");
  }

  /** An answer and not an error where it is larger than the server would parse: what user code may have made is often that. */
  parse({ maxBytes, maxNodes }: { readonly maxBytes: number; readonly maxNodes: number } = PARSE_LIMITS): Parsed {
    if (this.bytes.length > maxBytes) return { tooLarge: `it has more than ${maxBytes} bytes` };
    if (this.facts.nodes > maxNodes) return { tooLarge: `it has more than ${maxNodes} values` };
    return { value: this.parseAll(maxNodes) };
  }

  /**
   * Of what was found to be small when it was scanned.
   *
   * @param maxNodes more only where the caller has bounded them itself.
   * @throws {JsonLimitError} it is not: to make an object of each value holds up the event loop.
   */
  parseAll(maxNodes = PARSE_LIMITS.maxNodes): unknown {
    if (this.facts.nodes > maxNodes) throw new JsonLimitError(`it has more than ${maxNodes} values`);
    return JSON.parse(this.toString());
  }

  /** For `JSON.stringify` of what is small anyway. @throws {JsonLimitError} */
  toJSON(): unknown {
    const parsed = this.parse();
    if ("tooLarge" in parsed) throw new JsonLimitError(parsed.tooLarge);
    return parsed.value;
  }
}
