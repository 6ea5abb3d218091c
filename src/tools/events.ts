import type { JsonText } from "../shared/json/json-text.ts";
import type { Tool } from "./definitions.ts";

/** What code asks of its caller's client; the same on every transport. */
export type ToolEvent =
  | {
      readonly type: "tool_call";
      /** Names the call in its answer. */
      readonly id: string;
      /** As the client calls it. */
      readonly name: string;
      /** The arguments: a JSON object. */
      readonly input: JsonText;
    }
  | {
      readonly type: "input_request";
      readonly id: string;
      readonly prompt: string;
      /** What is written is not to be shown. */
      readonly password: boolean;
    };

/** What a client answers; of an `input_request` the result is a text. */
export type ToolAnswer =
  | { readonly id: string; readonly result: JsonText }
  | { readonly id: string; readonly error: { readonly message: string; readonly data?: JsonText } };

/** Tools that this server itself answers, those of MCP servers: no client is asked, or told. */
export interface InnerTools {
  /** By the names that calls have. */
  readonly tools: ReadonlyMap<string, Tool>;
  /** Never rejects. */
  call(
    name: string,
    input: JsonText,
    signal: AbortSignal,
  ): Promise<{ readonly result: JsonText } | { readonly error: { readonly message: string } }>;
}

/** How one transport reaches the client of one execution. */
export interface ToolClient {
  /** Shows the client a call. */
  send(event: ToolEvent): void;
  /** A call has its answer, or needs none any more: nothing of it has to be kept. */
  ended?(id: string): void;
  /** The code waits now, and nothing more happens before an answer or a time that it set itself. */
  blocked?(): void;
  /**
   * Whether the client is there. A call that gets no answer in time raises in Python if it is; if it is not, the call waits for its return, and
   * the transport decides for how long. Default: it is.
   */
  isAttended?(): boolean;
}

/** A reply as it goes to a client, whichever server sends it. */
export interface Reply {
  readonly status: number;
  readonly retryAfterS?: number | undefined;
  /** JSON. */
  readonly body: Uint8Array;
  /** The execution is over. */
  readonly isLast?: boolean;
}

/** Where an execution stands that waits for its client. */
export interface Step {
  /** Names it to the client. */
  readonly continuation: string;
  /** What has no answer yet. */
  readonly calls: readonly ToolEvent[];
  /** What was printed so far. */
  readonly stdout: string;
  readonly stderr: string;
}

/** A call that has come to its end, for the security log. */
export interface EndedCall {
  readonly name: string;
  readonly inputBytes: number;
  readonly resultBytes: number;
  readonly durationMs: number;
  /** `abandoned`: the execution ended first. `refused`: the client was not asked. */
  readonly outcome: "answered" | "error" | "timeout" | "abandoned" | "refused";
  /** The arguments as JSON; a text only once it is asked for: it may be large, and most servers log none. */
  readonly input: JsonText | string;
}
