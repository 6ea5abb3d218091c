import { Validator } from "@cfworker/json-schema";
import type { JsonSchema } from "./json-schema.ts";

/** @cfworker/json-schema interprets schemas: nothing of one becomes code, as it would with a compiler such as ajv. */
export interface SchemaTask {
  readonly schema: JsonSchema;
  /** JSON that was scanned. */
  readonly value: string;
}

export interface Checked {
  /** Where, and why; null: the value fits. */
  readonly mismatch: string | null;
}

const MAX_MESSAGE_CHARACTERS = 500;

/** Validators by schema: to make one walks the schema. */
const validators = new WeakMap<object, Validator>();

export function firstMismatch({ schema, value }: SchemaTask): Checked {
  let result: ReturnType<Validator["validate"]>;
  try {
    result = validatorOf(schema).validate(JSON.parse(value));
  } catch {
    return { mismatch: "has a schema that cannot be applied" };
  }
  const { valid, errors } = result;
  if (valid) return { mismatch: null };
  // The outermost keyword comes first, and says only that something inside is wrong.
  const innermost = errors.at(-1);
  const path = (innermost?.instanceLocation ?? "#").replace(/^#\/?/, "").replaceAll("/", ".");
  const error = innermost?.error.replace(/\.$/, "") ?? "it does not fit the schema";
  return { mismatch: `${path === "" ? "" : `argument ${path}: `}${error}`.slice(0, MAX_MESSAGE_CHARACTERS) };
}

function validatorOf(schema: JsonSchema): Validator {
  const known = typeof schema === "object" ? validators.get(schema) : undefined;
  // The latest draft, whatever the schema says: in it what stands beside a $ref counts, as clients mean it.
  const validator = known ?? new Validator(schema as ConstructorParameters<typeof Validator>[0], "2020-12", true);
  if (typeof schema === "object") validators.set(schema, validator);
  return validator;
}
