import { z } from "zod";
import { baseOf } from "../environments/registry.ts";
import type { EnvironmentProgress } from "../environments/start-progress.ts";
import type { Executor } from "../executor/executor.ts";
import { ms, timestamp } from "./schemas.ts";

export interface LoggingStatus {
  readonly level: string;
  readonly logFile: string | null;
  readonly securityLogFile: string | null;
  readonly isFileLoggingEnabled: boolean;
  readonly logDirectory: string | null;
}

export interface StatusOptions {
  readonly executor: Executor;
  readonly executionTimeoutMs: number;
  /** Pyodide's version. */
  readonly version: string;
  readonly logging: LoggingStatus;
  readonly environment: () => string;
  /** No keys are set: everybody is one principal, who may see all there is. */
  readonly isOpen: boolean;
  /** How far each environment is. */
  readonly progress: () => readonly EnvironmentProgress[];
  /** What the server needs and does not have at the moment, without addresses and paths; none: all is well. */
  readonly troubles: () => readonly string[];
  /** Further facts: environments, isolation layers. */
  readonly facts: () => Record<string, unknown>;
}

/**
 * What clients know as the state of Pyodide.
 *
 * @param seesLoad whether it says what the sandboxes do and did, which is to say everybody's executions.
 */
export function describeStatus({ executor, executionTimeoutMs, version, facts }: StatusOptions, seesLoad: boolean) {
  const pool = executor.pool.status();
  return {
    isReady: executor.isReady,
    initialized: executor.isReady,
    executionTimeout: executionTimeoutMs,
    version,
    timestamp: new Date().toISOString(),
    pool: seesLoad ? pool : { size: pool.size },
    // The name of a derived environment tells of its caller, so others do not see it.
    brokenEnvironments: pool.broken.map(({ environment }) => environment).filter((name) => baseOf(name) === name),
    ...facts(),
  };
}

export const statusSchema = z
  .looseObject({
    isReady: z.boolean(),
    initialized: z.boolean(),
    executionTimeout: ms.meta({ description: "Timeout of a request that names none, ms." }),
    version: z.string().meta({ description: "Pyodide's.", example: "314.0.7" }),
    timestamp,
    pool: z
      .looseObject({
        size: z.int(),
        idle: z.int().optional(),
        busy: z.int().optional(),
        starting: z.int().optional(),
        failed: z.int().optional(),
        queued: z.int().optional(),
      })
      .meta({ description: "All but `size` for the scope `admin` only: it tells of everybody's executions." }),
  })
  .meta({ id: "Status" });
