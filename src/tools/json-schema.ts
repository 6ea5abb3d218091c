/**
 * What a JSON Schema of a client's may hold: checked before anything works with it. Schemas come from the caller, so each is bounded, names nothing
 * outside of itself, and cannot be followed in a circle.
 */
import { isObject } from "../shared/json/json-object.ts";

export type JsonSchema = boolean | { readonly [keyword: string]: unknown };

/** Schemas inside each other. */
const MAX_DEPTH = 48;
/** References that lead to references, one after another: what follows them takes so many steps for each at most. */
const MAX_CHAIN = 16;
const TYPES = new Set(["null", "boolean", "object", "array", "number", "string", "integer"]);

/** Keywords whose value is a schema, a list of them, or an object of them. */
const ONE = new Set([
  ...["additionalItems", "unevaluatedItems", "contains", "additionalProperties", "unevaluatedProperties"],
  ...["propertyNames", "not", "if", "then", "else"],
]);
const LIST = new Set(["prefixItems", "allOf", "anyOf", "oneOf"]);
const MAP = new Set(["$defs", "definitions", "properties", "patternProperties", "dependentSchemas"]);
const NUMBERS = new Set(["maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum", "multipleOf"]);
const COUNTS = new Set([
  ...["maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties", "maxContains", "minContains"],
]);
/** Applied to the same value as the schema that they are in. */
const IN_PLACE = new Set(["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"]);
/** Keywords that make a check take longer than the schema and the value are large. */
const COSTLY = new Set([
  ...["anyOf", "enum", "const", "prefixItems"],
  ...["$ref", "pattern", "patternProperties", "format", "uniqueItems", "oneOf", "allOf", "not", "if", "contains"],
  ...["unevaluatedItems", "unevaluatedProperties", "dependentSchemas", "dependencies", "propertyNames", "multipleOf"],
]);
/** A schema with a base of its own could say that it is another, and the oldest drafts have other references. */
const REFUSED = new Set(["$id", "id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"]);

/** What is wrong with a schema, in words that follow its name. */
export class SchemaError extends Error {
  override readonly name = "SchemaError";
}

/** Regular expressions of one request's schemas, together: to compile one takes time of its own, whatever is done with it. */
export const MAX_PATTERN_CHARACTERS = 8_000;
/** Classes such as `\p{L}` in them: each takes as long as hundreds of characters. */
export const MAX_PATTERN_CLASSES = 200;

export class PatternBudget {
  #characters = 0;
  #classes = 0;

  /** @throws {SchemaError} if this one is too much. */
  take(pattern: string): void {
    this.#characters += pattern.length;
    this.#classes += pattern.match(/\\p/gi)?.length ?? 0;
    if (this.#characters > MAX_PATTERN_CHARACTERS)
      throw new SchemaError(`has regular expressions of more than ${MAX_PATTERN_CHARACTERS} characters together`);
    if (this.#classes > MAX_PATTERN_CLASSES)
      throw new SchemaError(`has more than ${MAX_PATTERN_CLASSES} Unicode classes in regular expressions`);
  }
}

export interface CheckedSchema {
  /** A check takes no longer than in proportion to the size of the schema times the size of the value. */
  readonly isPlain: boolean;
}

/**
 * @param patterns of all schemas that are checked for one request.
 * @throws {SchemaError} with the first thing that is wrong, and where.
 */
export function checkSchema(schema: unknown, patterns = new PatternBudget()): CheckedSchema {
  const walk = new Walk(schema, patterns);
  walk.visit(schema, "", 0);
  walk.refuseCircles();
  walk.refuseChains();
  return { isPlain: walk.isPlain };
}

/** The schema that `ref` (`#/$defs/name`) means inside of `root`; undefined: there is none. */
export function resolveRef(root: unknown, ref: string): unknown {
  if (ref === "#") return root;
  if (!ref.startsWith("#/")) return undefined;
  let found: unknown = root;
  for (const part of ref.slice(2).split("/")) {
    let name: string;
    try {
      name = decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
    } catch {
      return undefined;
    }
    if (typeof found !== "object" || found === null || !Object.hasOwn(found, name)) return undefined;
    found = (found as Record<string, unknown>)[name];
  }
  return found;
}

class Walk {
  isPlain = true;
  readonly #root: unknown;
  readonly #patterns: PatternBudget;
  /** Schema → those that apply to the same value. */
  readonly #inPlace = new Map<object, object[]>();
  /** Schema → what its reference leads to, and where that stands. Not by the place: a path is as long as its names, and made only to be shown. */
  readonly #targets = new Map<object, { readonly at: string; readonly target: object }>();

  constructor(root: unknown, patterns: PatternBudget) {
    this.#root = root;
    this.#patterns = patterns;
  }

  visit(schema: unknown, at: string, depth: number): void {
    if (typeof schema === "boolean") return;
    if (!isObject(schema)) throw new SchemaError(`${where(at)} is no schema`);
    if (depth > MAX_DEPTH) throw new SchemaError(`is deeper than ${MAX_DEPTH} schemas`);
    const applied: object[] = [];
    this.#inPlace.set(schema, applied);
    for (const [keyword, value] of Object.entries(schema)) {
      const here = `${at}/${keyword}`;
      if (REFUSED.has(keyword) && typeof value === "string") throw new SchemaError(`may not have ${keyword}`);
      if (COSTLY.has(keyword)) this.isPlain = false;
      for (const [below, path] of this.#below(keyword, value, here)) {
        this.visit(below, path, depth + 1);
        if (IN_PLACE.has(keyword) && isObject(below)) applied.push(below);
      }
      if (keyword === "$ref") {
        const target = typeof value === "string" ? resolveRef(this.#root, value) : undefined;
        if (!isObject(target) && typeof target !== "boolean")
          throw new SchemaError(`${where(here)} refers to nothing in the schema`);
        if (isObject(target)) {
          applied.push(target);
          this.#targets.set(schema, { at: here, target });
        }
      } else this.#checkValue(keyword, value, here);
    }
  }

  /** @throws {SchemaError} if a schema applies itself to the same value. What leads down into a value may be a circle: trees are. */
  refuseCircles(): void {
    for (const { at, target } of this.#targets.values()) {
      if (!this.#inPlace.has(target)) throw new SchemaError(`${where(at)} refers to what is no schema`);
    }
    const done = new Set<object>();
    const above = new Set<object>();
    // By hand: a chain of references may be longer than the stack is deep.
    for (const start of this.#inPlace.keys()) {
      const path: { readonly schema: object; next: number }[] = [{ schema: start, next: 0 }];
      above.add(start);
      for (let last = path.at(-1); last; last = path.at(-1)) {
        const following = done.has(last.schema) ? undefined : this.#inPlace.get(last.schema)?.[last.next++];
        if (following === undefined) {
          done.add(last.schema);
          above.delete(last.schema);
          path.pop();
        } else if (above.has(following)) throw new SchemaError("has a $ref that leads back to itself");
        else if (!done.has(following)) {
          above.add(following);
          path.push({ schema: following, next: 0 });
        }
      }
    }
  }

  /** @throws {SchemaError} Call {@link refuseCircles} first, which says more of a circle. */
  refuseChains(): void {
    for (const { at, target } of this.#targets.values()) {
      let links = 1;
      for (let next = this.#targets.get(target); next; next = this.#targets.get(next.target))
        if (++links > MAX_CHAIN) throw new SchemaError(`${where(at)} leads through more than ${MAX_CHAIN} references`);
    }
  }

  #below(keyword: string, value: unknown, at: string): [schema: unknown, at: string][] {
    if (ONE.has(keyword) || (keyword === "items" && !Array.isArray(value))) return [[value, at]];
    if (LIST.has(keyword) || keyword === "items") {
      if (!Array.isArray(value)) throw new SchemaError(`${where(at)} is no list of schemas`);
      return value.map((one, index) => [one, `${at}/${index}`]);
    }
    if (!MAP.has(keyword)) return [];
    if (!isObject(value)) throw new SchemaError(`${where(at)} is no object of schemas`);
    return Object.entries(value).map(([name, one]) => [one, `${at}/${name}`]);
  }

  #checkValue(keyword: string, value: unknown, at: string): void {
    const refuse = (what: string) => {
      throw new SchemaError(`${where(at)} ${what}`);
    };
    if (keyword === "type") {
      const types = Array.isArray(value) ? value : [value];
      if (types.length === 0 || !types.every((type) => typeof type === "string" && TYPES.has(type)))
        refuse(`is none of ${[...TYPES].join(", ")}`);
    } else if (keyword === "required") {
      if (!isTexts(value)) refuse("is no list of names");
    } else if (keyword === "enum") {
      if (!Array.isArray(value)) refuse("is no list");
    } else if (NUMBERS.has(keyword)) {
      if (typeof value !== "number") refuse("is no number");
    } else if (COUNTS.has(keyword)) {
      if (!(Number.isInteger(value) && (value as number) >= 0)) refuse("is no count");
    } else if (keyword === "pattern") {
      if (!this.#isPattern(value)) refuse("is no regular expression");
    } else if (keyword === "patternProperties") {
      if (!Object.keys(value as object).every((name) => this.#isPattern(name)))
        refuse("has a name that is no regular expression");
    } else if (keyword === "dependentRequired") {
      if (!isObject(value) || !Object.values(value).every(isTexts)) refuse("is no object of lists of names");
    } else if (keyword === "dependencies") refuse("is of an old draft; use dependentRequired or dependentSchemas");
    else if (keyword === "format" || keyword === "description" || keyword === "title") {
      if (typeof value !== "string") refuse("is no text");
    }
  }

  #isPattern(value: unknown): boolean {
    if (typeof value !== "string") return false;
    this.#patterns.take(value);
    try {
      new RegExp(value, "u");
      return true;
    } catch {
      return false;
    }
  }
}

function isTexts(value: unknown): boolean {
  return Array.isArray(value) && value.every((name) => typeof name === "string");
}

function where(at: string): string {
  return at === "" ? "it" : at.slice(0, 200);
}
