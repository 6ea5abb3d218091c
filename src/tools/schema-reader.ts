/** What Python shows of a JSON Schema: annotations. Schemas come from the caller and refer to themselves, so no part is worked out twice. */
import { isObject } from "../shared/json/json-object.ts";
import { resolveRef } from "./json-schema.ts";

/** Annotations say no more than a reader takes in. */
const MAX_ANNOTATION_CHARACTERS = 400;
const MAX_ANNOTATION_DEPTH = 6;
const MAX_LITERALS = 20;
/** Schemas looked at for one definition, each as often as another leads to it. What lies beyond is `Any`: only a schema made for it gets there. */
export const MAX_STEPS = 100_000;

const TYPES: Readonly<Record<string, string>> = {
  string: "str",
  integer: "int",
  number: "float",
  boolean: "bool",
  null: "None",
  array: "list",
  object: "dict",
};

/** What counts of a schema here. Where a reference is followed, only these are copied: others may be any number. */
const KEYWORDS = [
  ...["type", "items", "anyOf", "oneOf", "additionalProperties", "properties", "required"],
  ...["enum", "const", "title", "description", "default"],
];

type SchemaObject = Readonly<Record<string, unknown>>;

/** Names an object whose members are known. @param reference the schema, or a text of what it refers to: the same for the same, also in other tools. */
export type NameObject = (schema: SchemaObject, reference: unknown, depth: number) => string;

interface Place {
  readonly nameObject: NameObject | undefined;
  readonly reference: SchemaObject | null;
  readonly depth: number;
}

/** Reads one definition's schema, which was checked, and remembers what it has found out. One reader is either with names of objects or without. */
export class SchemaReader {
  readonly #root: unknown;
  readonly #followed = new Map<unknown, unknown>();
  /** By depth, as what lies too deep is left out. */
  readonly #annotations: Map<unknown, string>[] = [];
  readonly #nullable: Map<unknown, boolean>[] = [];
  readonly #texts = new Map<unknown, string>();
  #steps = 0;

  constructor(root: unknown) {
    this.#root = root;
  }

  /** Schemas looked at so far, each as often as another has led to it. */
  get steps(): number {
    return this.#steps;
  }

  /** What a reference means; the schema itself where it is none. A checked schema has no circle of references, and no long chain. */
  follow(schema: unknown): unknown {
    if (!isObject(schema) || typeof schema.$ref !== "string") return schema;
    if (this.#followed.has(schema)) return this.#followed.get(schema);
    this.#steps++;
    const target = this.follow(resolveRef(this.#root, schema.$ref));
    const found = isObject(target) ? { ...picked(target), ...picked(schema) } : target;
    this.#followed.set(schema, found);
    return found;
  }

  /**
   * A schema as the annotation of a Python type, `list[str]`; `Any` where there is no short one.
   *
   * @param nameObject default: an object is a `dict`. @param reference what refers to the schema; default: nothing.
   */
  annotationOf(schema: unknown, nameObject?: NameObject, depth = 0, reference: SchemaObject | null = null): string {
    if (depth > MAX_ANNOTATION_DEPTH || ++this.#steps > MAX_STEPS) return "Any";
    this.#annotations[depth] ??= new Map();
    const known = this.#annotations[depth].get(schema);
    if (known !== undefined) return known;
    const text = isObject(schema) ? this.#textOf(schema, { nameObject, reference, depth }) : "Any";
    const annotation = text.length > MAX_ANNOTATION_CHARACTERS ? "Any" : text;
    this.#annotations[depth].set(schema, annotation);
    return annotation;
  }

  takesNull(schema: unknown, depth = 0): boolean {
    if (depth > MAX_ANNOTATION_DEPTH || ++this.#steps > MAX_STEPS) return true;
    this.#nullable[depth] ??= new Map();
    const known = this.#nullable[depth].get(schema);
    if (known !== undefined) return known;
    const answer = isObject(schema) ? this.#findNull(schema, depth) : true;
    this.#nullable[depth].set(schema, answer);
    return answer;
  }

  #findNull(schema: SchemaObject, depth: number): boolean {
    const { $ref, type, anyOf, oneOf } = schema;
    if (typeof $ref === "string" && !this.takesNull(resolveRef(this.#root, $ref), depth)) return false;
    if (Array.isArray(schema.enum)) return schema.enum.includes(null);
    const either = anyOf ?? oneOf;
    if (Array.isArray(either)) return either.some((one) => this.takesNull(one, depth + 1));
    return type === undefined || [type].flat().includes("null");
  }

  #textOf(schema: SchemaObject, place: Place): string {
    const { $ref } = schema;
    if (typeof $ref !== "string") return this.#annotate(schema, place);
    // By what it refers to, which is worked out once, however much refers to it. What stands beside it narrows that down, or is all that is known.
    const { nameObject, depth, reference } = place;
    const text = this.annotationOf(resolveRef(this.#root, $ref), nameObject, depth, reference ?? schema);
    return text === "Any" ? this.#annotate(schema, place) : text;
  }

  #annotate(schema: SchemaObject, place: Place): string {
    const { type, anyOf, oneOf } = schema;
    const values = Object.hasOwn(schema, "const") ? [schema.const] : schema.enum;
    if (Array.isArray(values) && values.length > 0 && values.length <= MAX_LITERALS) {
      const literals = values.map(literalOf);
      if (!literals.includes(null)) return `Literal[${literals.join(", ")}]`;
    }
    const either = anyOf ?? oneOf;
    if (Array.isArray(either)) return union(either, (one) => this.#inside(one, place));
    // A list may have one type any number of times.
    if (Array.isArray(type)) return union([...new Set(type)], (one) => this.#ofType(one, schema, place));
    return this.#ofType(type, schema, place);
  }

  #ofType(type: unknown, schema: SchemaObject, place: Place): string {
    const { items, additionalProperties, properties } = schema;
    if (type === "array" && isObject(items)) return `list[${this.#inside(items, place)}]`;
    const hasMembers = isObject(properties) && Object.keys(properties).length > 0;
    if (type === "object" && hasMembers && place.nameObject)
      return place.nameObject(schema, this.#referenceOf(place.reference ?? schema), place.depth);
    if (type === "object" && !hasMembers && isObject(additionalProperties))
      return `dict[str, ${this.#inside(additionalProperties, place)}]`;
    return typeof type === "string" ? (Object.hasOwn(TYPES, type) && TYPES[type]) || "Any" : "Any";
  }

  #referenceOf(schema: SchemaObject): unknown {
    if (typeof schema.$ref !== "string") return schema;
    const target = resolveRef(this.#root, schema.$ref);
    // Tools repeat the schemas of what they share, and may also call different ones the same. One reference may be written in any number of ways.
    const text = this.#texts.get(target) ?? `${schema.$ref} ${JSON.stringify(target)}`;
    this.#texts.set(target, text);
    return text;
  }

  #inside(schema: unknown, { nameObject, depth }: Place): string {
    return this.annotationOf(schema, nameObject, depth + 1);
  }
}

function picked(schema: SchemaObject): SchemaObject {
  return Object.fromEntries(KEYWORDS.flatMap((word) => (Object.hasOwn(schema, word) ? [[word, schema[word]]] : [])));
}

/** Stops as soon as it is `Any`: there may be any number of members. */
function union<T>(members: readonly T[], annotate: (member: T) => string): string {
  const different = new Set<string>();
  let characters = 0;
  for (const member of members) {
    const text = annotate(member);
    if (text === "Any") return text;
    if (different.has(text)) continue;
    different.add(text);
    characters += text.length;
    if (characters > MAX_ANNOTATION_CHARACTERS) return "Any";
  }
  return different.size === 0 ? "Any" : [...different].join(" | ");
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
