/** From a tool's JSON Schemas to what Python shows of it: parameters with annotations. The stubs and the functions are made of the same. */
import { isObject } from "../shared/json/json-object.ts";
import type { ToolParameter } from "../wire/messages.ts";
import { resolveRef } from "./json-schema.ts";
import { toIdentifier } from "./python-names.ts";

/** Annotations say no more than a reader takes in. */
const MAX_ANNOTATION_CHARACTERS = 400;
const MAX_ANNOTATION_DEPTH = 6;
const MAX_LITERALS = 20;

const TYPES: Readonly<Record<string, string>> = {
  string: "str",
  integer: "int",
  number: "float",
  boolean: "bool",
  null: "None",
  array: "list",
  object: "dict",
};

export interface Signature {
  /** Those that a call needs first, then the others; in the order of the schema. */
  readonly parameters: readonly ToolParameter[];
  /** Further arguments are taken by keyword. */
  readonly takesMore: boolean;
}

/**
 * @param schema of the arguments, checked; undefined: a tool that takes what it is given.
 * @throws {Error} if two names become one in Python; the message says which.
 */
export function signatureOf(schema: unknown): Signature {
  const object = follow(schema, schema);
  if (!isObject(object)) return { parameters: [], takesMore: true };
  const required = new Set(Array.isArray(object.required) ? (object.required as string[]) : []);
  const described = isObject(object.properties) ? object.properties : {};
  const properties = new Map<string, unknown>(Object.entries(described));
  for (const name of required) if (!properties.has(name)) properties.set(name, true);
  const taken = new Map<string, string>();
  const parameters = Array.from(properties, ([key, property]): ToolParameter => {
    const name = toIdentifier(key, "_");
    if (name === null) throw new Error(`the parameter ${JSON.stringify(key)} can have no name in Python`);
    const other = taken.get(name);
    if (other !== undefined)
      throw new Error(`the parameters ${JSON.stringify(other)} and ${JSON.stringify(key)} are both ${name} in Python`);
    taken.set(name, key);
    const followed = follow(property, schema);
    const description = isObject(followed) && typeof followed.description === "string" ? followed.description : "";
    const fallback = isObject(followed) && followed.default !== undefined ? { default: followed.default } : {};
    return {
      name,
      key,
      required: required.has(key),
      nullable: takesNull(followed, schema),
      annotation: annotationOf(property, schema),
      description,
      ...fallback,
    };
  });
  const { additionalProperties = properties.size === 0 } = object;
  return {
    parameters: [...parameters.filter((one) => one.required), ...parameters.filter((one) => !one.required)],
    takesMore: additionalProperties !== false,
  };
}

/** Names an object whose members are known. @param reference the schema, or what refers to it: the same for the same. */
export type NameObject = (schema: Readonly<Record<string, unknown>>, reference: unknown, depth: number) => string;

/**
 * A schema as the annotation of a Python type, `list[str]`; `Any` where there is no short one.
 *
 * @param nameObject default: an object is a `dict`.
 */
export function annotationOf(schema: unknown, root: unknown, nameObject?: NameObject, depth = 0): string {
  const followed = follow(schema, root);
  if (!isObject(followed) || depth > MAX_ANNOTATION_DEPTH) return "Any";
  const reference = isObject(schema) && typeof schema.$ref === "string" ? schema.$ref : schema;
  const text = annotate(followed, { root, nameObject, reference, depth });
  return text.length > MAX_ANNOTATION_CHARACTERS ? "Any" : text;
}

interface Place {
  readonly root: unknown;
  readonly nameObject: NameObject | undefined;
  readonly reference: unknown;
  readonly depth: number;
}

function annotate(schema: Readonly<Record<string, unknown>>, place: Place): string {
  const { root, nameObject, reference, depth } = place;
  const { type, items, anyOf, oneOf, additionalProperties, properties } = schema;
  const inside = (one: unknown) => annotationOf(one, root, nameObject, depth + 1);
  const values = "const" in schema ? [schema.const] : schema.enum;
  if (Array.isArray(values) && values.length > 0 && values.length <= MAX_LITERALS) {
    const literals = values.map(literalOf);
    if (!literals.includes(null)) return `Literal[${literals.join(", ")}]`;
  }
  const either = anyOf ?? oneOf;
  if (Array.isArray(either)) return union(either.map(inside));
  if (Array.isArray(type)) return union(type.map((one) => annotate({ ...schema, type: one }, place)));
  if (type === "array" && isObject(items)) return `list[${inside(items)}]`;
  const hasMembers = isObject(properties) && Object.keys(properties).length > 0;
  if (type === "object" && hasMembers && nameObject) return nameObject(schema, reference, depth);
  if (type === "object" && !hasMembers && isObject(additionalProperties))
    return `dict[str, ${inside(additionalProperties)}]`;
  return typeof type === "string" ? (TYPES[type] ?? "Any") : "Any";
}

function union(members: readonly string[]): string {
  const different = [...new Set(members)];
  return different.includes("Any") || different.length === 0 ? "Any" : different.join(" | ");
}

function literalOf(value: unknown): string | null {
  if (typeof value === "string") return pythonText(value);
  if (typeof value === "boolean") return value ? "True" : "False";
  if (value === null) return "None";
  return Number.isInteger(value) ? String(value) : null;
}

/** A text as a Python literal: JSON's is one, but for what it leaves as it is. */
export function pythonText(text: string): string {
  return JSON.stringify(text).replace(
    /[\u007f-\u009f\u2028\u2029\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function takesNull(schema: unknown, root: unknown, depth = 0): boolean {
  const followed = follow(schema, root);
  if (!isObject(followed) || depth > MAX_ANNOTATION_DEPTH) return true;
  const { type, anyOf, oneOf } = followed;
  if (Array.isArray(followed.enum)) return followed.enum.includes(null);
  const either = anyOf ?? oneOf;
  if (Array.isArray(either)) return either.some((one) => takesNull(one, root, depth + 1));
  return type === undefined || [type].flat().includes("null");
}

/** What a reference means; the schema itself where it is none. A checked schema has no circle of references. */
export function follow(schema: unknown, root: unknown): unknown {
  let found = schema;
  while (isObject(found) && typeof found.$ref === "string") {
    const { $ref, ...beside } = found;
    const target = resolveRef(root, $ref as string);
    if (!isObject(target)) return target;
    found = { ...target, ...beside };
  }
  return found;
}
