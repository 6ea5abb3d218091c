import { pino } from "pino";
import type { Engine } from "../../src/engine/engine.ts";
import type { ExecutionRequest, ExecutionResult } from "../../src/engine/execution.ts";
import { startRuntime } from "../../src/server.ts";
import { testConfig } from "./config.ts";

export interface TestEngine {
  readonly engine: Engine;
  /** Runs code on the standard library alone, as one principal, with half a minute for it. */
  run(code: string, request?: Partial<ExecutionRequest>): Promise<ExecutionResult>;
  stop(): Promise<void>;
}

/** Real sandboxes without HTTP in front of them. */
export async function startTestEngine(settings: Record<string, string> = {}): Promise<TestEngine> {
  const { engine, environments, stop } = await startRuntime(testConfig(settings), pino({ level: "silent" }));
  const environment = environments.defaultName;
  return {
    engine,
    run: (code, request = {}) =>
      engine.execute({ code, environment, timeoutMs: 30_000, principal: "test", ...request }),
    stop: () => stop(0),
  };
}

/** Cuts the indentation that all lines share, so that Python can be indented as the TypeScript around it. */
export function py(strings: TemplateStringsArray, ...values: readonly unknown[]): string {
  const lines = String.raw({ raw: strings.raw }, ...values)
    .replace(/^\n/, "")
    .split("\n");
  const margins = lines.filter((line) => line.trim() !== "").map((line) => /^ */.exec(line)?.[0].length ?? 0);
  return lines.map((line) => line.slice(Math.min(...margins))).join("\n");
}
