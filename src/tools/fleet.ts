import { randomUUID } from "node:crypto";
import type { Redis } from "ioredis";
import { ClientError, type ErrorCode } from "../shared/errors.ts";
import { jsonParts, listParts } from "../shared/json/json-parts.ts";
import type { RedisConnection } from "../shared/redis-connection.ts";
import { KEY_PREFIX as PREFIX } from "../shared/redis-keys.ts";
import { readAnswers } from "./answers.ts";
import type { Reply, ToolAnswer } from "./events.ts";
import { serverOf } from "./execution-id.ts";

/** A wait that is shorter is not told to other servers, and one that is longer is told again and again, ms. */
const MARK_AFTER_MS = 100;
const MARK_AGAIN_MS = 2000;
const MARKED_MS = 3 * MARK_AGAIN_MS;

/** What is passed on lies in Redis for so long at the most, ms. */
const KEPT_MS = 60_000;
/** How often it is looked whether the other server is still there, and whether its answer has come without a word of it, ms. */
const LOOK_MS = 1000;

/** What a server does for another: what a client has sent there belongs to an execution here. */
export interface ExecutionOwner {
  answer(principal: string, id: string, answers: readonly ToolAnswer[]): Promise<void>;
  /** @throws {ClientError} as `Continuations.proceed`. */
  proceed(principal: string, id: string, answers: readonly ToolAnswer[]): Promise<Reply>;
  /** The client has the last reply. */
  delivered(principal: string, id: string): void;
  /** The client wants it no more. */
  cancel(principal: string, id: string): void;
}

type Operation = keyof ExecutionOwner;

interface Request {
  readonly request: string;
  readonly from: string;
  readonly operation: Operation;
  readonly principal: string;
  readonly execution: string;
}

/** What is published: a request, or that a request's answer lies in Redis. */
type Message = Request | { readonly answered: string };

type Answer =
  | { readonly reply: Omit<Reply, "body"> }
  | { readonly code: ErrorCode; readonly message: string }
  | { readonly done: true };

/**
 * Passes answers on to the server that runs their execution, by way of Redis. An execution's id begins with that server's name, so nothing has to
 * be looked up; contents lie under keys of their own, and a channel of each server says that they are there.
 */
export class ToolFleet {
  readonly #name: string;
  readonly #connection: RedisConnection;
  readonly #waiting = new Map<string, () => void>();
  readonly #subscriber: Redis;
  #owner: ExecutionOwner | null = null;

  /** @param name of this server, which ids of its executions begin with. */
  constructor(connection: RedisConnection, name: string) {
    this.#connection = connection;
    this.#name = name;
    // It reconnects by itself, and subscribes again.
    this.#subscriber = connection.duplicate({ maxRetriesPerRequest: null, commandTimeout: undefined });
    this.#subscriber.on("message", (_channel, text) => this.#receive(JSON.parse(text) as Message));
    this.#subscriber.subscribe(channelOf(this.#name)).catch(() => {});
  }

  /** From now on other servers' requests are done by `owner`. */
  serve(owner: ExecutionOwner): void {
    this.#owner = owner;
  }

  /** @throws {ClientError} what the other server says; 410 if it is gone; 503 `store_unavailable`. */
  async answer(principal: string, execution: string, answers: readonly ToolAnswer[]): Promise<void> {
    await this.#ask("answer", principal, execution, toBody(answers));
  }

  /** As {@link answer}. @param gone aborted when the client goes away, and the reply is not waited for any more. */
  async proceed(
    principal: string,
    execution: string,
    answers: readonly ToolAnswer[],
    gone?: AbortSignal,
  ): Promise<Reply> {
    const { head, body } = await this.#ask("proceed", principal, execution, toBody(answers), gone);
    if (!("reply" in head)) throw new Error("a server has answered something else");
    return { ...head.reply, body };
  }

  delivered(principal: string, execution: string): void {
    this.#tell("delivered", principal, execution);
  }

  cancel(principal: string, execution: string): void {
    this.#tell("cancel", principal, execution);
  }

  /** Of what is not answered. */
  #tell(operation: "delivered" | "cancel", principal: string, execution: string): void {
    const message: Request = { request: "", from: this.#name, operation, principal, execution };
    const channel = channelOf(serverOf(execution) ?? "");
    this.#connection.attempt((redis) => redis.publish(channel, JSON.stringify(message))).catch(() => {});
  }

  /** Whether code in a session waits for its client, on whichever server. */
  async isWaiting(session: string): Promise<boolean> {
    return (await this.#connection.attempt((redis) => redis.exists(waitingKey(session)))) === 1;
  }

  /** Tells the other servers whether code in a session waits. @returns to be called at each change, and with false at the end. */
  marksWaiting(session: string): (isWaiting: boolean) => void {
    let timer: NodeJS.Timeout | undefined;
    let isMarked = false;
    const mark = () => {
      isMarked = true;
      // A mark that is missing keeps a change of the session waiting instead of refusing it.
      this.#connection.attempt((redis) => redis.set(waitingKey(session), "1", "PX", MARKED_MS)).catch(() => {});
      timer = setTimeout(mark, MARK_AGAIN_MS).unref();
    };
    return (isWaiting) => {
      clearTimeout(timer);
      if (isWaiting) timer = setTimeout(mark, MARK_AFTER_MS).unref();
      else if (isMarked) {
        isMarked = false;
        this.#connection.attempt((redis) => redis.del(waitingKey(session))).catch(() => {});
      }
    };
  }

  async #ask(
    operation: Operation,
    principal: string,
    execution: string,
    content: Buffer,
    gone?: AbortSignal,
  ): Promise<{ head: Answer; body: Buffer }> {
    const request = randomUUID();
    const channel = channelOf(serverOf(execution) ?? "");
    const message: Request = { request, from: this.#name, operation, principal, execution };
    const { promise, resolve } = Promise.withResolvers<void>();
    let look = resolve;
    let looked = promise;
    this.#waiting.set(request, () => look());
    try {
      await this.#connection.attempt((redis) => redis.set(requestKey(request), content, "PX", KEPT_MS));
      const heard = await this.#connection.attempt((redis) => redis.publish(channel, JSON.stringify(message)));
      // The server has ended, and its executions with it.
      if (heard === 0) throw new ClientError("tool_wait_expired");
      for (;;) {
        const timer = setTimeout(() => look(), LOOK_MS).unref();
        await looked;
        clearTimeout(timer);
        ({ promise: looked, resolve: look } = Promise.withResolvers<void>());
        const answer = await this.#connection.attempt((redis) => redis.getdelBuffer(answerKey(request)));
        if (answer !== null) return read(answer);
        gone?.throwIfAborted();
        const [, count] = (await this.#connection.attempt((redis) => redis.pubsub("NUMSUB", channel))) as [
          string,
          number,
        ];
        if (Number(count) === 0) throw new ClientError("tool_wait_expired");
      }
    } finally {
      this.#waiting.delete(request);
    }
  }

  #receive(message: Message): void {
    if ("answered" in message) {
      this.#waiting.get(message.answered)?.();
      return;
    }
    // What fails here is Redis: the other server sees that by itself.
    this.#do(message).catch(() => {});
  }

  async #do({ request, from, operation, principal, execution }: Request): Promise<void> {
    const owner = this.#owner;
    if (owner === null) return;
    if (operation === "delivered" || operation === "cancel") {
      owner[operation](principal, execution);
      return;
    }
    let answer: Answer;
    let body: Uint8Array = Buffer.alloc(0);
    try {
      const content = await this.#connection.attempt((redis) => redis.getdelBuffer(requestKey(request)));
      // Delivered twice, or too late.
      if (content === null) return;
      const answers = await readAnswers(content, principal);
      if (operation === "answer") {
        await owner.answer(principal, execution, answers);
        answer = { done: true };
      } else {
        const { body: sent, ...reply } = await owner.proceed(principal, execution, answers);
        answer = { reply };
        body = sent;
      }
    } catch (error) {
      const { code, message } = error instanceof ClientError ? error : new ClientError("internal");
      answer = { code, message };
    }
    const whole = Buffer.concat([Buffer.from(`${JSON.stringify(answer)}\n`), body]);
    await this.#connection.attempt((redis) => redis.set(answerKey(request), whole, "PX", KEPT_MS));
    await this.#connection.attempt((redis) => redis.publish(channelOf(from), JSON.stringify({ answered: request })));
  }
}

/** @throws {ClientError} that the other server has answered with. */
function read(whole: Buffer): { head: Answer; body: Buffer } {
  // JSON has no newline of its own, so the first one is where the body begins.
  const end = whole.indexOf(10);
  const head = JSON.parse(whole.subarray(0, end).toString("utf8")) as Answer;
  if ("code" in head) throw ClientError.of(head);
  return { head, body: whole.subarray(end + 1) };
}

/** As clients post it. */
function toBody(answers: readonly ToolAnswer[]): Buffer {
  return Buffer.concat([Buffer.from('{"results":'), ...listParts(answers.map(partsOf)), Buffer.from("}")]);
}

function partsOf(answer: ToolAnswer): readonly Uint8Array[] {
  if ("result" in answer) return jsonParts(answer);
  const { id, error } = answer;
  return [Buffer.from(`{"id":${JSON.stringify(id)},"error":`), ...jsonParts(error), Buffer.from("}")];
}

const waitingKey = (session: string) => `${PREFIX}waiting-session:${session}`;
const channelOf = (server: string) => `${PREFIX}tools:${server}`;
const requestKey = (request: string) => `${PREFIX}tool-request:${request}`;
const answerKey = (request: string) => `${PREFIX}tool-answer:${request}`;
