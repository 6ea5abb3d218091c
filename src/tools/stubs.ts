/** Tools as the text of a Python stub file (`.pyi`): what a model is shown of the functions that its code may call. */

import { ClientError } from "../shared/errors.ts";
import { isObject } from "../shared/json/json-object.ts";
import type { Tool } from "./definitions.ts";
import { toIdentifier } from "./python-names.ts";
import { pythonText, SchemaReader } from "./schema-reader.ts";
import { MAX_SIGNATURE_CHARACTERS } from "./signatures.ts";

/** Longer values are not written out. */
const MAX_DEFAULT_CHARACTERS = 200;
/** What annotations are made of: a class of such a name would stand for it. */
const TAKEN = [
  ...["Any", "Literal", "NotRequired", "TypedDict"],
  ...["bool", "dict", "float", "int", "list", "object", "staticmethod", "str", "tuple"],
];
/** Names are made of others, each a part of the next: without a bound they grow with the square of a schema. */
const MAX_CLASS_NAME_CHARACTERS = 100;

/**
 * @param tools of a client, and of MCP servers: those are static methods of classes, `mcp.github.search_issues`.
 * @throws {ClientError} 400 `invalid_tools`: they are too many for one text.
 */
export function stubsOf(tools: readonly Tool[], mode: "sync" | "async"): string {
  const characters = tools.reduce((sum, { signatureCharacters }) => sum + signatureCharacters, 0);
  if (characters > MAX_SIGNATURE_CHARACTERS)
    throw new ClientError(
      "invalid_tools",
      `The tools' signatures may have ${MAX_SIGNATURE_CHARACTERS} characters together, references followed: ask for fewer at a time.`,
    );
  const paths = tools.map(({ signature }) => signature.name.split("."));
  const types = new TypedDicts(new Set([...TAKEN, ...paths.map(([first]) => first as string)]));
  const top = new Namespace();
  for (const [index, path] of paths.entries()) {
    const name = path.pop() as string;
    const within = path.reduce((space, part) => space.of(part), top);
    within.functions.push((indent) => functionOf(tools[index] as Tool, name, { mode, types, indent }));
  }
  const functions = top.write("");
  const imports = "from typing import Any, Literal, NotRequired, TypedDict";
  return `${[imports, ...types.classes, ...functions].join("\n\n")}\n`;
}

/** What has functions in it, and further ones of its kind. */
class Namespace {
  readonly functions: ((indent: string) => string)[] = [];
  readonly #inner = new Map<string, Namespace>();

  of(name: string): Namespace {
    const known = this.#inner.get(name) ?? new Namespace();
    this.#inner.set(name, known);
    return known;
  }

  write(indent: string): string[] {
    const deeper = `${indent}    `;
    return [
      ...this.functions.map((write) => (indent === "" ? "" : `${indent}@staticmethod\n`) + write(indent)),
      ...Array.from(this.#inner, ([name, inner]) => `${indent}class ${name}:\n${inner.write(deeper).join("\n\n")}`),
    ];
  }
}

interface Place {
  readonly mode: "sync" | "async";
  readonly types: TypedDicts;
  readonly indent: string;
}

function functionOf({ signature, parameters, returns }: Tool, name: string, { mode, types, indent }: Place): string {
  const reader = new SchemaReader(parameters);
  const properties = propertiesOf(reader.follow(parameters));
  const named = types.within(signature.name.replaceAll(".", "_"));
  const written = signature.parameters.map((parameter) => {
    const schema = properties.get(parameter.key) ?? true;
    const annotation = reader.annotationOf(schema, named(parameter.name, reader));
    const fallback = "default" in parameter ? literalOf(parameter.default) : "...";
    return `${parameter.name}: ${annotation}${parameter.required ? "" : ` = ${fallback}`}`;
  });
  if (signature.takesMore) written.push("**arguments: Any");
  const returned = new SchemaReader(returns);
  const result = returns === null ? "Any" : returned.annotationOf(returns, named("result", returned));
  const head = `${indent}${mode === "async" ? "async " : ""}def ${name}(${written.join(", ")}) -> ${result}:`;
  const described = signature.parameters.filter(({ description }) => description !== "");
  const lines = [
    ...(signature.description === "" ? [] : signature.description.split("\n")),
    ...(described.length === 0 ? [] : ["", "Arguments:"]),
    ...described.map(({ name, description }) => `    ${name}: ${description.replaceAll("\n", " ")}`),
  ];
  return lines.length === 0 ? `${head} ...` : `${head}\n${indent}    ${docstring(lines, `${indent}    `)}`;
}

function propertiesOf(followed: unknown): ReadonlyMap<string, unknown> {
  return new Map(isObject(followed) && isObject(followed.properties) ? Object.entries(followed.properties) : []);
}

/** Classes for objects whose members are known. */
class TypedDicts {
  readonly classes: string[] = [];
  readonly #taken: Set<string>;
  /** Schema, or the reference to it, → name. */
  readonly #names = new Map<unknown, string>();
  /** Name → the number that comes next where it is taken: any number of objects may have one title. */
  readonly #numbers = new Map<string, number>();

  constructor(taken: Set<string>) {
    this.#taken = taken;
  }

  /** @returns what names an object, by where it is. */
  within(tool: string) {
    return (parameter: string, reader: SchemaReader) =>
      (schema: Readonly<Record<string, unknown>>, reference: unknown, depth: number): string =>
        this.#name(schema, { reference, reader, hint: `${camel(tool)}${camel(parameter)}`, depth });
  }

  #name(
    schema: Readonly<Record<string, unknown>>,
    { reference, reader, hint, depth }: { reference: unknown; reader: SchemaReader; hint: string; depth: number },
  ): string {
    const known = this.#names.get(reference);
    if (known !== undefined) return known;
    const title = typeof schema.title === "string" ? toIdentifier(schema.title, "_") : null;
    const name = this.#free(short(title ?? hint));
    this.#names.set(reference, name);
    const required = new Set(Array.isArray(schema.required) ? schema.required : []);
    const members = Object.entries(schema.properties as object).map(([key, property]) => {
      const nested = (inner: Readonly<Record<string, unknown>>, of: unknown, deeper: number) =>
        this.#name(inner, {
          reference: of,
          reader,
          hint: `${name}${camel(toIdentifier(key, "_") ?? "Member")}`,
          depth: deeper,
        });
      const annotation = reader.annotationOf(property, nested, depth + 1);
      return [key, required.has(key) ? annotation : `NotRequired[${annotation}]`] as const;
    });
    const isPlain = members.every(([key]) => toIdentifier(key, "_") === key);
    const written = isPlain
      ? `class ${name}(TypedDict):\n${members.map(([key, type]) => `    ${key}: ${type}`).join("\n")}`
      : `${name} = TypedDict("${name}", {${members.map(([key, type]) => `${pythonText(key)}: ${type}`).join(", ")}})`;
    // What it refers to comes first, but for itself.
    this.classes.push(written);
    return name;
  }

  #free(base: string): string {
    let name = base;
    let number = this.#numbers.get(base) ?? 2;
    while (this.#taken.has(name)) name = `${base}${number++}`;
    this.#numbers.set(base, number);
    this.#taken.add(name);
    return name;
  }
}

function short(name: string): string {
  // Not half of a character.
  return name.slice(0, MAX_CLASS_NAME_CHARACTERS).replace(/[\ud800-\udbff]$/, "");
}

function camel(name: string): string {
  return name
    .split("_")
    .map((part) => part.charAt(0).toUpperCase() + part.slice(1))
    .join("");
}

function literalOf(value: unknown): string {
  const text = write(value);
  return text.length > MAX_DEFAULT_CHARACTERS ? "..." : text;
}

function write(value: unknown): string {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return pythonText(value);
  if (Array.isArray(value)) return `[${value.map(write).join(", ")}]`;
  if (isObject(value)) {
    const members = Object.entries(value).map(([key, member]) => `${pythonText(key)}: ${write(member)}`);
    return `{${members.join(", ")}}`;
  }
  // What JSON has no way to write, and whole numbers that JavaScript does not hold exactly, are not told as something else.
  if (
    typeof value === "number" &&
    (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value)))
  )
    return "...";
  return String(value);
}

function docstring(lines: readonly string[], indent: string): string {
  const text = lines
    .map((line) => (line === "" ? "" : `${indent}${line}`))
    .join("\n")
    .trimStart();
  const safe = text
    .replaceAll("\\", "\\\\")
    .replaceAll('"', '\\"')
    // biome-ignore lint/suspicious/noControlCharactersInRegex: a stub is text that people and models read.
    .replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028\u2029]/g, " ");
  return `"""${safe}"""`;
}
