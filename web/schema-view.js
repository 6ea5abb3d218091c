import { element, prose } from "./elements.js";

/**
 * The parts of JSON Schema that the server's document uses.
 *
 * @typedef {{ $ref?: string, type?: string | string[], properties?: Record<string, Schema>, required?: string[],
 *   items?: Schema, prefixItems?: Schema[], anyOf?: Schema[], oneOf?: Schema[], allOf?: Schema[],
 *   additionalProperties?: boolean | Schema, enum?: unknown[], const?: unknown, description?: string, format?: string,
 *   contentEncoding?: string, example?: unknown, examples?: unknown[], minimum?: number, maximum?: number,
 *   maxLength?: number, pattern?: string }} Schema
 */

/**
 * A schema as a list: name, type, meaning.
 *
 * @param {Schema} schema
 * @param {Record<string, Schema>} schemas the document's components
 * @param {readonly string[]} [seen] names of the components it is part of
 * @returns {HTMLElement}
 */
export function schemaView(schema, schemas, seen = []) {
  const { target, path } = resolve(schema, schemas, seen);
  const properties = Object.entries(target.properties ?? {});
  if (properties.length === 0) {
    const alternatives = (target.anyOf ?? target.oneOf ?? []).filter(({ type }) => type !== "null");
    const view = element("div", {}, element("span", { class: "type" }, typeOf(target, schemas)));
    if (target.description) view.append(" ", ...prose(target.description));
    if (alternatives.some((alternative) => hasProperties(alternative, schemas))) {
      view.append(...alternatives.map((alternative) => schemaView(alternative, schemas, path)));
    } else if (target.items && hasProperties(target.items, schemas)) {
      view.append(schemaView(target.items, schemas, path));
    }
    return view;
  }
  return element(
    "ul",
    { class: "schema" },
    ...properties.map(([name, property]) => {
      const { target: resolved, path: inner, cyclic } = resolve(property, schemas, path);
      const item = element(
        "li",
        {},
        element("code", {}, name),
        " ",
        element("span", { class: "type" }, typeOf(property, schemas)),
      );
      if (target.required?.includes(name)) item.append(" ", element("span", { class: "required" }, "required"));
      const description = property.description ?? resolved.description;
      if (description) item.append(element("div", { class: "note" }, ...prose(description)));
      if (resolved.enum)
        item.append(
          element(
            "div",
            { class: "note" },
            `One of ${resolved.enum.map((value) => JSON.stringify(value)).join(", ")}.`,
          ),
        );
      const nested = [resolved, resolved.items, ...(resolved.anyOf ?? [])].find(
        (candidate) => candidate !== undefined && hasProperties(candidate, schemas),
      );
      if (nested && !cyclic) item.append(schemaView(nested, schemas, inner));
      return item;
    }),
  );
}

/**
 * @param {Schema} schema
 * @param {Record<string, Schema>} schemas
 * @param {readonly string[]} seen
 */
function resolve(schema, schemas, seen) {
  const name = schema.$ref?.split("/").at(-1);
  if (name === undefined) return { target: schema, path: seen, cyclic: false };
  return { target: schemas[name] ?? {}, path: [...seen, name], cyclic: seen.includes(name) };
}

/**
 * @param {Schema} schema
 * @param {Record<string, Schema>} schemas
 */
function hasProperties(schema, schemas) {
  return Object.keys(resolve(schema, schemas, []).target.properties ?? {}).length > 0;
}

/**
 * @param {Schema} schema
 * @param {Record<string, Schema>} schemas
 * @returns {string} `string`, `number[]`, `object | null`, …
 */
function typeOf(schema, schemas) {
  const { target } = resolve(schema, schemas, []);
  if (target.const !== undefined) return JSON.stringify(target.const);
  const alternatives = target.anyOf ?? target.oneOf;
  if (alternatives) return alternatives.map((alternative) => typeOf(alternative, schemas)).join(" | ");
  const type = Array.isArray(target.type) ? target.type.join(" | ") : target.type;
  if (type === "array") return `${target.items ? typeOf(target.items, schemas) : "any"}[]`;
  return target.format === undefined ? (type ?? "any") : `${type} (${target.format})`;
}
