import { ROOT } from "./api.js";
import { byId, element, prose } from "./elements.js";
import { schemaView } from "./schema-view.js";

const METHODS = ["get", "post", "put", "delete"];

/**
 * @typedef {{ summary?: string, description?: string, tags?: string[], operationId?: string, deprecated?: boolean,
 *   parameters?: { name: string, in: string, required?: boolean, description?: string, schema?: object }[],
 *   requestBody?: { content?: Record<string, Media> },
 *   responses?: Record<string, { description?: string, content?: Record<string, Media> }> }} Operation
 * @typedef {{ schema?: object, example?: unknown }} Media
 * @typedef {{ info: { title: string, version: string, description?: string }, tags?: { name: string, description?: string }[],
 *   paths: Record<string, Record<string, Operation>>, components?: { schemas?: Record<string, object> } }} OpenApi
 */

/** @param {OpenApi} api */
function show(api) {
  byId("title", HTMLElement).textContent = api.info.title;
  byId("version", HTMLElement).textContent = `Version ${api.info.version} ·`;
  byId("description", HTMLElement).replaceChildren(...prose(api.info.description ?? ""));
  const contents = byId("contents", HTMLElement);
  const operations = byId("operations", HTMLElement);
  // On a narrow screen the contents stand above the text, and closed they do not hide it.
  const wide = matchMedia("(min-width: 60rem)").matches;
  for (const [tag, tagged] of byTag(api)) {
    const links = tagged.map(({ method, path }) =>
      element("li", {}, element("a", { href: `#${anchor(method, path)}` }, badge(method), element("span", {}, path))),
    );
    contents.append(
      element("details", wide ? { open: true } : {}, element("summary", {}, tag), element("ul", {}, ...links)),
    );
    const description = api.tags?.find(({ name }) => name === tag)?.description;
    operations.append(element("h2", {}, tag), ...(description ? [element("p", {}, ...prose(description))] : []));
    for (const { method, path, operation } of tagged) operations.append(operationView(api, method, path, operation));
  }
}

/** @param {OpenApi} api */
function byTag(api) {
  /** @type {Map<string, { method: string, path: string, operation: Operation }[]>} */
  const tags = new Map(api.tags?.map(({ name }) => [name, []]));
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const method of METHODS) {
      const operation = methods[method];
      if (!operation) continue;
      const tag = operation.tags?.[0] ?? "Other";
      const tagged = tags.get(tag) ?? [];
      tagged.push({ method, path, operation });
      tags.set(tag, tagged);
    }
  }
  return tags;
}

/**
 * @param {OpenApi} api
 * @param {string} method
 * @param {string} path
 * @param {Operation} operation
 */
function operationView(api, method, path, operation) {
  const { summary, description, parameters = [], requestBody, responses = {} } = operation;
  const schemas = api.components?.schemas ?? {};
  const id = anchor(method, path);
  const view = element(
    "article",
    { class: "card operation", id, "aria-labelledby": `${id}-name` },
    element("h3", { id: `${id}-name` }, badge(method), element("code", { class: "path" }, path)),
  );
  if (summary) view.append(element("p", {}, summary));
  if (description) view.append(element("p", { class: "note" }, ...prose(description)));
  if (parameters.length > 0) {
    view.append(
      element("h4", {}, "Parameters"),
      schemaView(
        {
          type: "object",
          properties: Object.fromEntries(
            parameters.map(({ name, schema, description }) => [
              name,
              { ...schema, ...(description && { description }) },
            ]),
          ),
          required: parameters.filter(({ required }) => required).map(({ name }) => name),
        },
        schemas,
      ),
    );
  }
  for (const [type, { schema }] of Object.entries(requestBody?.content ?? {})) {
    view.append(element("h4", {}, `Body, ${type}`), schemaView(schema ?? {}, schemas));
  }
  view.append(
    element("h4", {}, "Example"),
    element("pre", { class: "example" }, curl(method, path, requestBody?.content)),
  );
  view.append(
    element("h4", {}, "Replies"),
    element(
      "ul",
      { class: "replies" },
      ...Object.entries(responses).map(([status, response]) => element("li", {}, replyView(status, response, schemas))),
    ),
  );
  return view;
}

/**
 * @param {string} status
 * @param {{ description?: string, content?: Record<string, Media> }} response
 * @param {Record<string, object>} schemas
 */
function replyView(status, { description = "", content = {} }, schemas) {
  const line = [element("span", { class: "status-code" }, status), " ", ...prose(description)];
  const bodies = Object.entries(content).flatMap(([type, { schema }]) => [
    element("p", { class: "type" }, type),
    ...(schema ? [schemaView(schema, schemas)] : []),
  ]);
  if (bodies.length === 0) return element("p", {}, ...line);
  return element("details", {}, element("summary", {}, ...line), ...bodies);
}

/**
 * @param {string} method
 * @param {string} path
 * @param {Record<string, Media>} [content] of the request
 */
function curl(method, path, content = {}) {
  const url = ROOT + path.replace(/\{(\w+)\}/g, "data.csv");
  const [type, media] = Object.entries(content)[0] ?? [];
  if (type === "multipart/form-data") return `curl -F csvFile=@data.csv ${url}`;
  const verb = method === "get" ? "" : `-X ${method.toUpperCase()} `;
  if (type === undefined || media?.example === undefined) return `curl ${verb}${url}`;
  const body = typeof media.example === "string" ? media.example : JSON.stringify(media.example);
  return `curl ${url} \\\n  -H 'Content-Type: ${type}' \\\n  -d '${body.replaceAll("'", "'\\''")}'`;
}

/** @param {string} method */
function badge(method) {
  return element("span", { class: `method ${method}` }, method.toUpperCase());
}

/**
 * @param {string} method
 * @param {string} path
 */
function anchor(method, path) {
  return `${method}${path.replace(/[^A-Za-z0-9]+/g, "-")}`;
}

const status = byId("status", HTMLElement);
try {
  const response = await fetch(`${ROOT}/docs.json`);
  if (!response.ok) throw new Error(`The server answered ${response.status}.`);
  show(await response.json());
  status.hidden = true;
  // The anchor in the address did not exist when the browser looked for it.
  if (location.hash !== "") document.getElementById(location.hash.slice(1))?.scrollIntoView();
} catch (error) {
  status.dataset.state = "bad";
  status.textContent = `The documentation could not be loaded. ${error instanceof Error ? error.message : ""}`;
}
