import type { TestServer } from "./server.ts";

export interface StreamEvent {
  readonly type: string;
  // biome-ignore lint/suspicious/noExplicitAny: what a server sends is what the test is about to find out.
  readonly [field: string]: any;
}

/** What answers one call: a result, or what is thrown as an error. */
export type Handler = (event: StreamEvent) => unknown;

/** A client that follows a stream of events. */
export class ToolStream {
  readonly events: StreamEvent[] = [];
  readonly response: Response;
  readonly #to: Pick<TestServer, "url">;
  readonly #headers: Record<string, string>;
  readonly #iterator: AsyncGenerator<StreamEvent, undefined>;

  private constructor(response: Response, to: Pick<TestServer, "url">, headers: Record<string, string>) {
    this.response = response;
    this.#to = to;
    this.#headers = headers;
    this.#iterator = eventsOf(response);
  }

  static async open(
    to: Pick<TestServer, "url">,
    body: unknown,
    { headers = {}, signal }: { headers?: Record<string, string>; signal?: AbortSignal } = {},
  ): Promise<ToolStream> {
    const response = await fetch(`${to.url}/api/execute-stream`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify(body),
      ...(signal && { signal }),
    });
    return new ToolStream(response, to, headers);
  }

  get execution(): string {
    return this.events.find(({ type }) => type === "status")?.execution;
  }

  /** The next event of one of these types; null: the stream has ended. */
  async next(...types: string[]): Promise<StreamEvent | null> {
    for (;;) {
      const { value, done } = await this.#iterator.next();
      if (done || value === undefined) return null;
      this.events.push(value);
      if (types.length === 0 || types.includes(value.type)) return value;
    }
  }

  async answer(
    results: readonly unknown[],
    to: Pick<TestServer, "url"> = this.#to,
  ): Promise<{ status: number; body: StreamEvent }> {
    return await this.post(JSON.stringify({ results }), to);
  }

  /** Posts exactly these bytes as answers. */
  async post(
    body: string | Uint8Array,
    to: Pick<TestServer, "url"> = this.#to,
  ): Promise<{ status: number; body: StreamEvent }> {
    const response = await fetch(`${to.url}/api/executions/${this.execution}/results`, {
      method: "POST",
      headers: { "content-type": "application/json", ...this.#headers },
      body: body as NonNullable<RequestInit["body"]>,
    });
    return { status: response.status, body: (await response.json()) as StreamEvent };
  }

  /** Answers each call, until there is a result. */
  async run(handler: Handler): Promise<StreamEvent> {
    for (;;) {
      const event = await this.next("tool_call", "input_request", "result");
      if (event === null) throw new Error("the stream has ended without a result");
      if (event.type === "result") return event;
      let answer: object;
      try {
        answer = { result: (await handler(event)) ?? null };
      } catch (error) {
        answer = { error: { message: (error as Error).message } };
      }
      const { status, body } = await this.answer([{ id: event.id, ...answer }]);
      if (status !== 202) throw new Error(`answered ${status}: ${JSON.stringify(body)}`);
    }
  }
}

async function* eventsOf(response: Response): AsyncGenerator<StreamEvent, undefined> {
  const isLines = response.headers.get("content-type")?.includes("ndjson") === true;
  const [before, after] = isLines ? ["", "\n"] : ["data: ", "\n\n"];
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of response.body as ReadableStream<Uint8Array>) {
    rest += decoder.decode(chunk, { stream: true });
    for (let end = rest.indexOf(after); end >= 0; end = rest.indexOf(after)) {
      const event = rest.slice(0, end);
      rest = rest.slice(end + after.length);
      // A heartbeat.
      if (event === "" || event === ": ") continue;
      yield JSON.parse(event.slice(before.length)) as StreamEvent;
    }
  }
}
