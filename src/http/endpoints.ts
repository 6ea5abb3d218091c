import { legacyFileRoutes } from "./compat/files.ts";
import { resetRoutes } from "./compat/reset.ts";
import { legacyStatisticsRoutes } from "./compat/statistics.ts";
import { uploadRoutes } from "./compat/uploads.ts";
import { editorRoutes } from "./resources/editor.ts";
import { executeRoutes } from "./resources/execute.ts";
import { executionRoutes } from "./resources/executions.ts";
import { fileRoutes } from "./resources/files.ts";
import { namespaceRoutes } from "./resources/namespaces.ts";
import { packageRoutes } from "./resources/packages.ts";
import { pageRoutes } from "./resources/pages.ts";
import { secretRoutes } from "./resources/secrets.ts";
import { sessionRoutes } from "./resources/sessions.ts";
import { metricsRoutes, statisticsRoutes } from "./resources/statistics.ts";
import { probeRoutes, statusRoutes } from "./resources/status.ts";
import { webSocketRoutes } from "./resources/websocket.ts";
import type { Route } from "./routes.ts";

/** Behind the checks of host and origin, the key, the limits, and the reading of bodies. */
export const KEYED_ROUTES: readonly Route[] = [
  ...executeRoutes,
  ...executionRoutes,
  ...webSocketRoutes,
  ...sessionRoutes,
  ...namespaceRoutes,
  ...editorRoutes,
  ...secretRoutes,
  ...fileRoutes,
  ...uploadRoutes,
  ...legacyFileRoutes,
  ...packageRoutes,
  ...resetRoutes,
  ...statisticsRoutes,
  ...legacyStatisticsRoutes,
  ...statusRoutes,
];

/** Every endpoint but `/docs.json`, which `openapi.ts` makes of these. */
export const ROUTES: readonly Route[] = [...KEYED_ROUTES, ...metricsRoutes, ...probeRoutes, ...pageRoutes];
