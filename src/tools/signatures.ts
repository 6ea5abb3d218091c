/** From a tool's JSON Schemas to what Python shows of it: parameters with annotations. The stubs and the functions are made of the same. */
import { isObject } from "../shared/json/json-object.ts";
import type { ToolParameter } from "../wire/messages.ts";
import { SchemaError } from "./json-schema.ts";
import { toIdentifier } from "./python-names.ts";
import { SchemaReader } from "./schema-reader.ts";

/** Of all tools together, and of each: references repeat what a schema says once. */
export const MAX_SIGNATURE_CHARACTERS = 1024 * 1024;

export interface Signature {
  /** Those that a call needs first, then the others; in the order of the schema. */
  readonly parameters: readonly ToolParameter[];
  /** Further arguments are taken by keyword. */
  readonly takesMore: boolean;
  /** Characters of all that it says. */
  readonly characters: number;
}

/**
 * @param schema of the arguments, checked; undefined: a tool that takes what it is given. @param reader of the same schema.
 * @throws {SchemaError} if it would be too long. @throws {Error} if two names become one in Python; the message says which.
 */
export function signatureOf(schema: unknown, reader = new SchemaReader(schema)): Signature {
  const object = reader.follow(schema);
  if (!isObject(object)) return { parameters: [], takesMore: true, characters: 0 };
  const required = new Set(Array.isArray(object.required) ? (object.required as string[]) : []);
  const described = isObject(object.properties) ? object.properties : {};
  const properties = new Map<string, unknown>(Object.entries(described));
  for (const name of required) if (!properties.has(name)) properties.set(name, true);
  const taken = new Map<string, string>();
  let characters = 0;
  const parameters = Array.from(properties, ([key, property]): ToolParameter => {
    const name = toIdentifier(key, "_");
    if (name === null) throw new Error(`the parameter ${JSON.stringify(key.slice(0, 255))} can have no name in Python`);
    const other = taken.get(name);
    if (other !== undefined)
      throw new Error(`the parameters ${JSON.stringify(other)} and ${JSON.stringify(key)} are both ${name} in Python`);
    taken.set(name, key);
    const followed = reader.follow(property);
    const description = isObject(followed) && typeof followed.description === "string" ? followed.description : "";
    const fallback = isObject(followed) && followed.default !== undefined ? { default: followed.default } : {};
    const annotation = reader.annotationOf(property);
    characters +=
      name.length + annotation.length + description.length + (JSON.stringify(fallback.default) ?? "").length;
    if (characters > MAX_SIGNATURE_CHARACTERS)
      throw new SchemaError(`what its references repeat has more than ${MAX_SIGNATURE_CHARACTERS} characters`);
    return {
      name,
      key,
      required: required.has(key),
      nullable: reader.takesNull(property),
      annotation,
      description,
      ...fallback,
    };
  });
  const { additionalProperties = properties.size === 0 } = object;
  return {
    parameters: [...parameters.filter((one) => one.required), ...parameters.filter((one) => !one.required)],
    takesMore: additionalProperties !== false,
    characters,
  };
}
