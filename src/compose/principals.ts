import { parseApiKeys } from "../http/middleware/authentication.ts";
import { allowedOrigins } from "../http/middleware/cross-site.ts";
import { ANONYMOUS } from "../shared/principal.ts";
import type { Config, Inferred } from "../shared/settings.ts";
import { MAX_CONNECTIONS } from "./listener.ts";

/** Who may be let in; one, `anonymous`, while authentication is off. */
export function principalsOf(config: Config): ReadonlySet<string> {
  const keys = parseApiKeys(config);
  return new Set(keys.length === 0 ? [ANONYMOUS.id] : keys.map(({ principal }) => principal.id));
}

/** How much of the pool one principal may have. A principal that is alone may take all of it. */
export function principalShares(config: Config): { maxPerPrincipal: number; maxQueuedPerPrincipal: number } {
  const { POOL_SIZE, QUEUE_LIMIT, PRINCIPAL_MAX_CONCURRENCY, PRINCIPAL_MAX_QUEUED } = config;
  const isShared = principalsOf(config).size > 1;
  return {
    maxPerPrincipal: PRINCIPAL_MAX_CONCURRENCY || (isShared ? Math.max(1, POOL_SIZE - 1) : POOL_SIZE),
    maxQueuedPerPrincipal: PRINCIPAL_MAX_QUEUED || (isShared ? Math.ceil(QUEUE_LIMIT / 2) : QUEUE_LIMIT),
  };
}

/** How many requests one principal may have open, wherever they wait: not all connections, and no less than may wait for sandboxes. */
export function maxOpenRequests(config: Config): number {
  if (config.PRINCIPAL_MAX_OPEN !== 0) return config.PRINCIPAL_MAX_OPEN;
  if (principalsOf(config).size <= 1) return MAX_CONNECTIONS;
  const { maxPerPrincipal, maxQueuedPerPrincipal } = principalShares(config);
  return Math.max(MAX_CONNECTIONS / 4, maxPerPrincipal + maxQueuedPerPrincipal);
}

/** How many executions may wait for clients: never all sandboxes, and never all of these are one principal's where there are several. */
export function toolShares(config: Config): { maxExecutions: number; maxOfPrincipal: number } {
  const { POOL_SIZE, TOOL_EXECUTIONS_MAX, TOOL_EXECUTIONS_PER_PRINCIPAL } = config;
  const room = POOL_SIZE - 1;
  const maxExecutions = TOOL_EXECUTIONS_MAX === 0 ? room : Math.min(TOOL_EXECUTIONS_MAX, room);
  const isShared = principalsOf(config).size > 1;
  // Nor are they all that the principal may have running: what it runs besides would wait for what waits.
  const share = Math.min(
    isShared ? Math.ceil(maxExecutions / 2) : maxExecutions,
    principalShares(config).maxPerPrincipal - 1,
  );
  return { maxExecutions, maxOfPrincipal: TOOL_EXECUTIONS_PER_PRINCIPAL || Math.max(1, share) };
}

/** What follows from other settings where they leave it open, for people. */
export function impliedSettings(config: Config): readonly Inferred[] {
  const { maxPerPrincipal, maxQueuedPerPrincipal } = principalShares(config);
  const keys = parseApiKeys(config).length;
  const from = keys === 0 ? "no API keys" : `the API keys of ${principalsOf(config).size}`;
  const origins = allowedOrigins(config);
  const implied: Inferred[] = [];
  const imply = (name: string, value: string) => implied.push({ name, value, from });
  if (config.PRINCIPAL_MAX_CONCURRENCY === 0) imply("PRINCIPAL_MAX_CONCURRENCY", String(maxPerPrincipal));
  if (config.PRINCIPAL_MAX_QUEUED === 0) imply("PRINCIPAL_MAX_QUEUED", String(maxQueuedPerPrincipal));
  if (config.PRINCIPAL_MAX_OPEN === 0) imply("PRINCIPAL_MAX_OPEN", String(maxOpenRequests(config)));
  if (config.CORS_ORIGIN === "") imply("CORS_ORIGIN", origins === "*" ? "*" : "none");
  return implied;
}
