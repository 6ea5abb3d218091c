/** `npm run docs:endpoints`: writes the table of endpoints in README.md from what they declare in `src/http/`. */
import { z } from "zod";
import { ENDPOINTS } from "../src/http/openapi.ts";
import { type BodyKind, type Route, scopesOf } from "../src/http/routes.ts";
import { rewriteIfRun, withPart } from "./written-part.ts";

function endpointTable(): string {
  return `| endpoint | scope | |\n| --- | --- | --- |\n${ENDPOINTS.map(row).join("")}`;
}

function row(declared: Route): string {
  const { method, path, summary, body, scope } = declared;
  const takes = body ? ` ← ${shown(body)}` : "";
  const access = scope === "any key" ? "" : scope === "no key" ? "no key" : scopesOf(declared).join(", ");
  return `| \`${method.toUpperCase()} ${path}\`${takes} | ${access} | ${summary} |\n`;
}

/** `{code, context?}`, or the type of a body that is no JSON. */
function shown({ type, schema }: BodyKind<unknown>): string {
  if (type !== "application/json" || !(schema instanceof z.ZodObject)) return type;
  const members = Object.entries(schema.shape as Record<string, z.ZodType>).map(
    ([name, member]) => `${name}${member.safeParse(undefined).success ? "?" : ""}`,
  );
  return `\`{${members.join(", ")}}\``;
}

await rewriteIfRun(import.meta.url, "README.md", (readme) => withPart(readme, "endpoints", endpointTable()));
