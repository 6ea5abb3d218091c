import { openApiDocument } from "../../src/http/openapi.ts";

/** A route as the OpenAPI document has it. */
export interface Route {
  readonly method: string;
  readonly path: string;
  /** Type of the body that it takes; undefined: none. */
  readonly type: string | undefined;
  readonly body: unknown;
  /** Types of its replies. */
  readonly replies: readonly string[];
}

interface Operation {
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly example?: unknown }>> };
  readonly responses?: Readonly<Record<string, { readonly content?: Readonly<Record<string, unknown>> }>>;
}

/** Every route, so that one that is added is tested without a word in the test. */
export const ROUTES: readonly Route[] = Object.entries(openApiDocument().paths ?? {}).flatMap(([path, methods]) =>
  Object.entries(methods as Record<string, Operation>).map(([method, { requestBody, responses }]) => {
    const [type, media] = Object.entries(requestBody?.content ?? {})[0] ?? [];
    const replies = Object.values(responses ?? {}).flatMap(({ content }) => Object.keys(content ?? {}));
    return { method: method.toUpperCase(), path, type, body: media?.example, replies };
  }),
);

/** A path with names in it. */
export function pathOf({ path }: Route): string {
  return path.replace(/\{\w+\}/g, "name");
}
