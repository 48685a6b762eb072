/** Requests answered by a function in this process, for programs that hold the service themselves. */
import { Buffer } from "node:buffer";
import { Deadlines } from "../async/deadlines.ts";
import type { Log } from "../log/log.ts";
import { messageOf, RequestError } from "../protocol/errors.ts";
import { MAX_ANSWER_BYTES } from "../webhooks/webhook.ts";
import { type Answer, type ClientRequest, closeReasonOf, type Responder } from "./requests.ts";

/** What the function is given. */
export interface IncomingRequest {
  /** The same when the client repeats the request. */
  readonly id: string;
  readonly user: string;
  /** Id of the connection, as in the log. */
  readonly conn: string;
  /** Name of the node. */
  readonly node: string;
  readonly op: string;
  /** What the client gave; undefined when it gave nothing. */
  readonly data: unknown;
  /** Fires when nobody waits for the answer any more: the time is over, or the client has gone. */
  readonly signal: AbortSignal;
}

/**
 * Answers a request of a client: with anything that can be written as JSON, or undefined when there is nothing to say.
 * Throw a `RequestError` to refuse it; what else it throws is logged, and the client gets `unavailable`.
 */
export type OnRequest = (request: IncomingRequest) => unknown;

export interface FunctionResponderOptions {
  readonly onRequest: OnRequest;
  /** How long an answer may take, in milliseconds; half a second more, at most. */
  readonly timeoutMs: number;
  /** Name of this node. */
  readonly node: string;
  readonly log: Log;
}

export class FunctionResponder implements Responder, Disposable {
  readonly #options: FunctionResponderOptions;
  readonly #deadlines: Deadlines;

  constructor(options: FunctionResponderOptions) {
    this.#options = options;
    this.#deadlines = new Deadlines(options.timeoutMs);
  }

  async respond({ id, user, conn, op, json }: ClientRequest, signal: AbortSignal): Promise<Answer> {
    const { onRequest, node, log, timeoutMs } = this.#options;
    const late = new AbortController();
    const over = AbortSignal.any([signal, late.signal]);
    const data: unknown = json === undefined ? undefined : JSON.parse(json);
    const answering = Promise.try(onRequest, { id, user, conn, node, op, data, signal: over });
    try {
      const answer = await this.#deadlines.within(whileWanted(answering, signal), {
        late() {
          late.abort();
          return new RequestError(`There was no answer within ${timeoutMs} ms`, "timeout", {
            outcome: "unknown",
          });
        },
      });
      return answerOf(answer);
    } catch (error) {
      if (late.signal.aborted) return failure("timeout", messageOf(error));
      if (error instanceof RequestError) return refusalOf(error);
      if (!signal.aborted) log.error("onRequest failed", { user, op, reason: messageOf(error) });
      return failure("unavailable", "The request could not be answered");
    }
  }

  [Symbol.dispose](): void {
    this.#deadlines.close();
  }
}

/** Ends when the signal fires, whatever becomes of the promise: a function that never ends must hold nothing. */
function whileWanted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const leave = () => reject(signal.reason);
    signal.addEventListener("abort", leave, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", leave));
  });
}

/** @throws {TypeError} when it can't be written as JSON. */
function answerOf(value: unknown): Answer {
  const json = JSON.stringify(value) as string | undefined;
  if (json !== undefined && Buffer.byteLength(json) > MAX_ANSWER_BYTES) {
    return failure("bad_answer", "The answer is too large");
  }
  return { outcome: "answered", json };
}

function failure(outcome: "timeout" | "unavailable" | "bad_answer", err: string): Answer {
  return { outcome, code: outcome, err, isUncertain: true };
}

function refusalOf({ code, message, outcome, retryMs, close }: RequestError): Answer {
  return {
    ...{ outcome: "refused", code, err: message, retryMs, isUncertain: outcome === "unknown" },
    close: close === undefined ? undefined : closeReasonOf(close, message),
  };
}
