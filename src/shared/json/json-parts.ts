import { JsonText } from "./json-text.ts";

/**
 * An object as JSON, in parts that are written one after another: members that are a {@link JsonText}, or lists of them, are
 * these bytes as they are.
 */
export function jsonParts(value: object): readonly Uint8Array[] {
  if (value instanceof JsonText) return [value.bytes];
  const parts: Uint8Array[] = [];
  let text = "";
  const add = (json: JsonText) => {
    parts.push(Buffer.from(text), json.bytes);
    text = "";
  };
  let separator = "{";
  for (const [name, member] of Object.entries(value)) {
    if (member === undefined) continue;
    text += `${separator}${JSON.stringify(name)}:`;
    separator = ",";
    if (member instanceof JsonText) add(member);
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

function isList(value: unknown): value is readonly JsonText[] {
  return Array.isArray(value) && value.length > 0 && value.every((element) => element instanceof JsonText);
}

/** A list of objects that are there in parts, in parts. */
export function listParts(elements: readonly (readonly Uint8Array[])[]): readonly Uint8Array[] {
  const inside = elements.flatMap((parts, index) => (index === 0 ? parts : [Buffer.from(","), ...parts]));
  return [Buffer.from("["), ...inside, Buffer.from("]")];
}
