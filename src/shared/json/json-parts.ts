import { JsonText } from "./json-text.ts";

/** A member of an object, as JSON in parts. */
export class JsonFragments {
  readonly parts: readonly Uint8Array[];

  /** @param value as {@link jsonParts} takes it. */
  constructor(value: object, parts = jsonParts(value)) {
    this.parts = parts;
  }

  /** What is JSON already, an object or not. */
  static of(parts: readonly Uint8Array[]): JsonFragments {
    return new JsonFragments({}, parts);
  }

  /** For `JSON.stringify`: that would write it in another way. */
  toJSON(): never {
    throw new TypeError("fragments of JSON are written by jsonParts");
  }
}

/**
 * An object as JSON, in parts that are written one after another: members that are a {@link JsonText}, {@link JsonFragments}, or lists of them,
 * are these bytes as they are.
 */
export function jsonParts(value: object): readonly Uint8Array[] {
  if (value instanceof JsonText) return [value.bytes];
  if (value instanceof JsonFragments) return value.parts;
  const parts: Uint8Array[] = [];
  let text = "";
  const add = (json: JsonText | JsonFragments) => {
    parts.push(Buffer.from(text), ...(json instanceof JsonText ? [json.bytes] : json.parts));
    text = "";
  };
  let separator = "{";
  for (const [name, member] of Object.entries(value)) {
    if (member === undefined) continue;
    text += `${separator}${JSON.stringify(name)}:`;
    separator = ",";
    if (isWritten(member)) add(member);
    else if (isList(member)) {
      text += "[";
      for (const [index, element] of member.entries()) {
        if (index > 0) text += ",";
        add(element);
      }
      text += "]";
    } else text += JSON.stringify(member);
  }
  parts.push(Buffer.from(separator === "{" ? "{}" : `${text}}`));
  return parts;
}

function isWritten(value: unknown): value is JsonText | JsonFragments {
  return value instanceof JsonText || value instanceof JsonFragments;
}

function isList(value: unknown): value is readonly (JsonText | JsonFragments)[] {
  return Array.isArray(value) && value.length > 0 && value.every(isWritten);
}

/** A list of objects that are there in parts, in parts. */
export function listParts(elements: readonly (readonly Uint8Array[])[]): readonly Uint8Array[] {
  const inside = elements.flatMap((parts, index) => (index === 0 ? parts : [Buffer.from(","), ...parts]));
  return [Buffer.from("["), ...inside, Buffer.from("]")];
}
