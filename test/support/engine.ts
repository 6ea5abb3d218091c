import { pino } from "pino";
import { startRuntime } from "../../src/compose/runtime.ts";
import type { ExecutionRequest } from "../../src/executor/execution.ts";
import type { Executor } from "../../src/executor/executor.ts";
import type { ExecutionResult } from "../../src/sandbox/outcome.ts";
import type { MimeBundle } from "../../src/wire/messages.ts";
import { testConfig } from "./config.ts";

export interface TestEngine {
  readonly executor: Executor;
  /** Runs code on the standard library alone, as one principal, with half a minute for it. */
  run(code: string, request?: TestRequest): Promise<TestResult>;
  stop(): Promise<void>;
}

/** With the context as an object. */
export type TestRequest = Partial<Omit<ExecutionRequest, "context">> & { readonly context?: object | undefined };

/** With values in the place of their JSON. */
export type TestResult = Omit<ExecutionResult, "result" | "display" | "displayMetadata" | "outputs"> & {
  readonly result: unknown;
  readonly display?: MimeBundle | null;
  readonly displayMetadata?: Readonly<Record<string, unknown>>;
  readonly outputs: readonly MimeBundle[];
};

/** For tests that look at values: JSON is parsed, however large it is. */
export function withValues(result: ExecutionResult): TestResult {
  const { display, displayMetadata, ...rest } = result;
  const outputs = rest.outputs.map((bundle) => JSON.parse(bundle.toString()) as MimeBundle);
  return {
    ...rest,
    result: JSON.parse(rest.result.toString()),
    ...(display !== undefined && { display: display && (JSON.parse(display.toString()) as MimeBundle) }),
    ...(displayMetadata && { displayMetadata: JSON.parse(displayMetadata.toString()) }),
    outputs,
  };
}

/** Real sandboxes without HTTP in front of them. */
export async function startTestEngine(settings: Record<string, string> = {}): Promise<TestEngine> {
  const { executor, environments, stop } = await startRuntime(testConfig(settings), pino({ level: "silent" }));
  const environment = environments.defaultName;
  return {
    executor,
    run: async (code, { context, ...request } = {}) =>
      withValues(
        await executor.execute({
          code,
          environment,
          timeoutMs: 30_000,
          principal: "test",
          ...(context && { context: JSON.stringify(context) }),
          ...request,
        }),
      ),
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
